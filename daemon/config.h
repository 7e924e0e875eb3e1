// thimbled's options: each is listed once, in OptionTable. From it come the command line (--NAME),
// the environment (THIMBLE_NAME), the configuration file (NAME = VALUE), --help, --check-config,
// the manual page, the default configuration file and the shell completions.
//
// To add an option: a field of Config with its default, a line in config.cc's table, and what reads
// the field. A default is written nowhere else. Called by: main, the engine. Memory: the table is
// 6 KiB.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "daemon/ceiling/ceiling.h"
#include "daemon/log.h"
#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"
#include "storage/base/status.h"
#include "storage/kv_block_index.h"
#include "storage/weight_reader.h"

namespace thimble {

struct Config {
  std::string model;               // empty: the built-in model
  uint64_t ram_ceiling_bytes = 0;  // 0: the limit in force
  Enforcement enforcement = Enforcement::kCgroup;
  std::string state_dir = "/var/lib/thimble";
  std::string listen = "unix:/run/thimble/thimble.sock";
  std::string http = "127.0.0.1:9464";  // "off": none
  bool allow_remote = false;
  bool reflection = false;
  uint32_t context_tokens = 0;  // 0: the model's own, kDefaultContextTokens at most
  uint32_t max_active = 4;
  uint32_t max_queue = 64;
  Granularity granularity = Granularity::kAuto;
  uint32_t prompt_chunk = 0;  // 0: what the budget holds, kLargestPromptChunk at most
  uint32_t draft_tokens = 8;
  ReaderBackend reader = ReaderBackend::kAuto;
  uint64_t cache_bytes = kGiB;
  KvType kv_type = KvType::kF16;
  LogLevel log_level = LogLevel::kInfo;
};

struct OptionSpec {
  std::string name;   // "max-active": --max-active, THIMBLE_MAX_ACTIVE, max-active =
  std::string unit;   // "N", "SIZE", "head|op|auto"; empty: a flag, yes or no
  std::string range;  // "1 to 64"; empty where the unit says it
  std::string help;
  std::string fallback;     // the default in words; else as one would type it
  bool rereadable = false;  // takes effect on SIGHUP, without a restart

  // Reads `text` into the config; the error says what would do, the caller adds the name and value.
  std::function<Status(const std::string& text, Config& config)> parse;
  // The value as one would type it.
  std::function<std::string(const Config& config)> show;

  [[nodiscard]] bool is_flag() const { return unit.empty(); }
};
const std::vector<OptionSpec>& OptionTable();

// What does not go together, once all are read.
struct Conflict {
  std::string name;  // the option to blame
  std::string message;
};
std::vector<Conflict> FindConflicts(const Config& config);

// The model file of `config`: as named, or the built-in one, looked for where it is installed
// (PREFIX/share/thimble/models, PREFIX being the program's own) and in the source tree. NOT_FOUND
// with the places that were tried.
Result<std::string> FindModelFile(const Config& config);

// The context that requests get of a model trained for `model_tokens`. INVALID_ARGUMENT where more
// was asked for.
Result<uint32_t> ContextTokens(const Config& config, uint32_t model_tokens);

}  // namespace thimble
