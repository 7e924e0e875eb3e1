// Where option values come from, and which one counts: command line > THIMBLE_* environment >
// configuration file > default. Every problem found in any of them is told, each with its source:
// "/etc/thimble/thimbled.conf:12", "THIMBLE_MAX_ACTIVE", "--max-active".
//
// Called by: main at start, and again on SIGHUP. Memory: some strings; CLI11's parser while it
// runs.
#pragma once

#include <string>
#include <vector>

#include "daemon/config.h"
#include "storage/base/status.h"

namespace thimble {

inline constexpr const char* kDefaultConfigFile = "/etc/thimble/thimbled.conf";

struct Invocation {
  Config config;
  std::vector<std::string> sources;  // of each value, beside OptionTable(): "default", ...
  std::string config_file;           // empty: none was read
  bool check = false;                // --check-config
  std::string print;                 // --help, --version: print this and exit 0
};

// `environment` is as in environ(7); variables that do not begin with THIMBLE_ are none of ours,
// and THIMBLE_CONNECT is the client's. Where neither --config nor THIMBLE_CONFIG names a file,
// `default_file` is read if it is there. INVALID_ARGUMENT, one problem a line.
Result<Invocation> ReadOptions(int argc, const char* const* argv, const char* const* environment,
                               const std::string& default_file = kDefaultConfigFile);

// "max-active" as the environment has it: "THIMBLE_MAX_ACTIVE".
std::string VariableName(const std::string& option);

}  // namespace thimble
