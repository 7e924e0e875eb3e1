#include "daemon/config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include "daemon/queue/speculation.h"
#include "daemon/rpc/listen_address.h"

namespace thimble {
namespace {

// 64M rather than 67108864: the largest unit that leaves nothing over.
std::string ShowSize(uint64_t bytes) {
  constexpr std::pair<uint64_t, const char*> kUnits[] = {{kGiB, "G"}, {kMiB, "M"}, {kKiB, "K"}};
  for (const auto& [unit, letter] : kUnits) {
    if (bytes != 0 && bytes % unit == 0) return std::to_string(bytes / unit) + letter;
  }
  return std::to_string(bytes);
}

// The builders of the table: one for each kind of value. The rest (`fallback`, `rereadable`) is
// set where an option has it.

OptionSpec Count(std::string name, uint32_t Config::*field, uint32_t low, uint32_t high,
                 std::string help) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.unit = "N";
  spec.range = std::to_string(low) + " to " + std::to_string(high);
  spec.help = std::move(help);
  spec.parse = [=, range = spec.range](const std::string& text, Config& config) -> Status {
    uint32_t value = 0;
    const char* last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, value);
    if (error != std::errc() || end != last || value < low || value > high) {
      return InvalidArgumentError("a whole number from " + range);
    }
    config.*field = value;
    return {};
  };
  spec.show = [=](const Config& config) { return std::to_string(config.*field); };
  return spec;
}

OptionSpec Size(std::string name, uint64_t Config::*field, uint64_t low, bool zero,
                std::string help) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.unit = "SIZE";
  spec.range = "at least " + ShowSize(low) + (zero ? ", or 0" : "");
  spec.help = std::move(help);
  spec.parse = [=, range = spec.range](const std::string& text, Config& config) -> Status {
    const Result<uint64_t> value = ParseSize(text);
    if (!value.ok() || (*value < low && !(zero && *value == 0))) {
      return InvalidArgumentError("a size such as 64M or 1G, " + range);
    }
    config.*field = *value;
    return {};
  };
  spec.show = [=](const Config& config) { return ShowSize(config.*field); };
  return spec;
}

OptionSpec Path(std::string name, std::string unit, std::string Config::*field, std::string help) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.unit = std::move(unit);
  spec.help = std::move(help);
  spec.parse = [=](const std::string& text, Config& config) -> Status {
    if (text.empty()) return InvalidArgumentError("must not be empty");
    config.*field = text;
    return {};
  };
  spec.show = [=](const Config& config) { return config.*field; };
  return spec;
}

template <typename T>
OptionSpec Choice(std::string name, const std::string& choices, T Config::*field,
                  Result<T> (*parse)(std::string_view), std::string_view (*show)(T),
                  std::string help) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.unit = choices;
  spec.help = std::move(help);
  spec.parse = [=](const std::string& text, Config& config) -> Status {
    Result<T> value = parse(text);
    if (!value.ok()) return InvalidArgumentError("one of " + choices);
    config.*field = *value;
    return {};
  };
  spec.show = [=](const Config& config) { return std::string(show(config.*field)); };
  return spec;
}

OptionSpec Flag(std::string name, bool Config::*field, std::string help) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.help = std::move(help);
  spec.parse = [=](const std::string& text, Config& config) -> Status {
    const bool yes = text == "yes" || text == "true" || text == "on" || text == "1";
    const bool no = text == "no" || text == "false" || text == "off" || text == "0";
    if (!yes && !no) return InvalidArgumentError("yes or no");
    config.*field = yes;
    return {};
  };
  spec.show = [=](const Config& config) { return config.*field ? "yes" : "no"; };
  return spec;
}

OptionSpec Address(std::string name, std::string Config::*field, bool off, std::string help) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.unit = "ADDRESS";
  spec.range = std::string("unix:PATH, 127.0.0.1:PORT, [::1]:PORT") + (off ? ", or off" : "") +
               "; others with --allow-remote";
  spec.help = std::move(help);
  spec.parse = [=](const std::string& text, Config& config) -> Status {
    if (!off || text != "off") {
      const Result<ListenAddress> address = ParseListenAddress(text);
      if (!address.ok()) {
        return InvalidArgumentError((off ? "off, " : "") + address.status().message());
      }
    }
    config.*field = text;
    return {};
  };
  spec.show = [=](const Config& config) { return config.*field; };
  return spec;
}

OptionSpec WithFallback(OptionSpec spec, std::string words) {
  spec.fallback = std::move(words);
  return spec;
}

OptionSpec Rereadable(OptionSpec spec) {
  spec.rereadable = true;
  return spec;
}

// In the order of --help and the manual page.
std::vector<OptionSpec> MakeTable() {
  std::vector<OptionSpec> table = {
      WithFallback(Path("model", "FILE", &Config::model, "the model, a GGUF file"),
                   "the built-in model"),
      Size("ram-ceiling", &Config::ram_ceiling_bytes, kMiB, true,
           "the most RAM for everything, page cache included; 0: the limit in force"),
      Choice<Enforcement>("enforcement", "cgroup|process|none", &Config::enforcement,
                          ParseEnforcement, EnforcementName,
                          "what enforces the ceiling; process: resource limits, weaker"),
      Path("state-dir", "DIR", &Config::state_dir, "journal and cache are kept here"),
      Address("listen", &Config::listen, false, "where gRPC clients connect"),
      Address("http", &Config::http, true, "where the status page, health and metrics are read"),
      Flag("allow-remote", &Config::allow_remote,
           "let --listen and --http take addresses that other machines reach: there is no "
           "authentication and no encryption"),
      Flag("reflection", &Config::reflection,
           "tell gRPC clients which services and messages there are (grpcurl, grpcui)"),
      WithFallback(Count("context", &Config::context_tokens, 2, 1U << 20,
                         "tokens of one request, prompt and generated"),
                   "the model's own, at most " + std::to_string(kDefaultContextTokens)),
      Count("max-active", &Config::max_active, 1, 64, "requests computed together"),
      Count("max-queue", &Config::max_queue, 0, 10000, "requests that may wait"),
      Choice<Granularity>("granularity", "head|op|auto", &Config::granularity, ParseGranularity,
                          GranularityName,
                          "how stages are grouped; head: one by one, the least RAM"),
      Count("prompt-chunk", &Config::prompt_chunk, 0, 1024,
            "prompt tokens in one pass, at most; 0: as many as the budget holds, up to " +
                std::to_string(kLargestPromptChunk) + ", " +
                std::to_string(kPromptChunkWithoutCeiling) +
                " without a ceiling; fewer while tokens of others wait for them"),
      Count("draft-tokens", &Config::draft_tokens, 0, kMaxDrafts,
            "tokens guessed from a request's own text, and from what the model lately thought may "
            "follow the same token, and verified in the pass of its next one, at most; as they "
            "pay; 0: none"),
      Choice<ReaderBackend>("reader", "auto|io_uring|aio|direct|buffered", &Config::reader,
                            ParseReaderBackend, ReaderBackendName,
                            "how weights are read from flash"),
      Size("cache-size", &Config::cache_bytes, 16 * kMiB, false,
           "the most disk for the cache in the state directory"),
      Choice<KvType>("kv-type", "f16|q8_0", &Config::kv_type, ParseKvType, KvTypeName,
                     "how keys and values are kept; q8_0: half the disk and reading, text a "
                     "little other than with f16"),
      Rereadable(Choice<LogLevel>("log-level", "error|warning|notice|info|debug",
                                  &Config::log_level, ParseLogLevel, LogLevelName,
                                  "the least severe lines that are logged")),
  };
  const Config defaults;
  for (OptionSpec& spec : table) {
    if (spec.fallback.empty()) spec.fallback = spec.show(defaults);
  }
  return table;
}

}  // namespace

const std::vector<OptionSpec>& OptionTable() {
  static const std::vector<OptionSpec> table = MakeTable();
  return table;
}

std::vector<Conflict> FindConflicts(const Config& config) {
  std::vector<Conflict> found;
  if (config.allow_remote) return found;
  const std::pair<const char*, const std::string*> addresses[] = {{"listen", &config.listen},
                                                                  {"http", &config.http}};
  for (const auto& [name, text] : addresses) {
    const Result<ListenAddress> address = ParseListenAddress(*text);
    if (address.ok() && address->remote) {
      found.push_back({name,
                       "other machines reach this address, and there is no authentication: "
                       "only with --allow-remote"});
    }
  }
  return found;
}

Result<std::string> FindModelFile(const Config& config) {
  if (!config.model.empty()) return config.model;
  constexpr const char* kName = "thimble-stories-q8_0.gguf";
  std::error_code error;
  std::vector<std::filesystem::path> places;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    places.push_back(program.parent_path().parent_path() / "share/thimble/models" / kName);
  }
  places.push_back(std::filesystem::path(THIMBLE_BUILTIN_MODELS) / kName);
  std::string tried;
  for (const std::filesystem::path& place : places) {
    if (std::filesystem::is_regular_file(place, error)) return place.string();
    tried += (tried.empty() ? "" : ", ") + place.string();
  }
  return NotFoundError("the built-in model is in none of: " + tried + "; name one with --model");
}

Result<uint32_t> ContextTokens(const Config& config, uint32_t model_tokens) {
  if (config.context_tokens == 0) return std::min(model_tokens, kDefaultContextTokens);
  if (config.context_tokens <= model_tokens) return config.context_tokens;
  return InvalidArgumentError("--context " + std::to_string(config.context_tokens) +
                              ": the model was trained for " + std::to_string(model_tokens) +
                              " tokens, no more");
}

}  // namespace thimble
