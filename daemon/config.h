// thimbled's options: each is listed once, in OptionTable (name, unit, default, help, what reads
// it). Called by: main. Memory: some strings.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "daemon/ceiling/ceiling.h"
#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

struct Config {
  std::string model;               // empty: the built-in model
  uint64_t ram_ceiling_bytes = 0;  // 0: the limit in force
  Enforcement enforcement = Enforcement::kCgroup;
  std::string state_dir = "/var/lib/thimble";
  std::string listen = "unix:/run/thimble/thimble.sock";
  std::string http = "127.0.0.1:9464";  // "off": none
  uint32_t context_tokens = 0;          // 0: the model's own, kDefaultContext at most
  uint32_t max_active = 4;
  uint32_t max_queue = 64;
  Granularity granularity = Granularity::kAuto;
  uint32_t prompt_chunk = 64;
  ReaderBackend reader = ReaderBackend::kAuto;
  uint64_t cache_bytes = kGiB;
};

// A longer context costs disk (the KV cache) and time, not RAM; asked for, the model's own is
// given.
inline constexpr uint32_t kDefaultContext = 2048;

struct OptionSpec {
  std::string name;      // "--max-active"
  std::string unit;      // "N", "SIZE"
  std::string fallback;  // the default, as one would type it
  std::string help;
  // Reads `text` into the config; the error says the value and the range, the caller adds the name.
  std::function<Status(const std::string& text, Config& config)> parse;
};
const std::vector<OptionSpec>& OptionTable();

struct Invocation {
  Config config;
  std::string print;  // --help, --version: print this and exit 0
};
// INVALID_ARGUMENT naming the option, its value and its range.
Result<Invocation> ParseArguments(int argc, const char* const* argv);

// The model file of `config`: as named, or the built-in one, looked for where it is installed
// (PREFIX/share/thimble/models, PREFIX being the program's own) and in the source tree. NOT_FOUND
// with the places that were tried.
Result<std::string> FindModelFile(const Config& config);

}  // namespace thimble
