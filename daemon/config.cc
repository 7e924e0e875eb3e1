#include "daemon/config.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <utility>

#include "daemon/rpc/listen_address.h"

namespace thimble {
namespace {

Status ParseCount(const std::string& text, uint32_t low, uint32_t high, uint32_t* out) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    return InvalidArgumentError("a whole number from " + std::to_string(low) + " to " +
                                std::to_string(high));
  }
  *out = value;
  return {};
}

OptionSpec Count(std::string name, uint32_t Config::*field, uint32_t low, uint32_t high,
                 std::string fallback, std::string help) {
  return {std::move(name), "N", std::move(fallback), std::move(help),
          [=](const std::string& text, Config& config) {
            return ParseCount(text, low, high, &(config.*field));
          }};
}

OptionSpec Path(std::string name, std::string unit, std::string Config::*field,
                std::string fallback, std::string help) {
  return {std::move(name), std::move(unit), std::move(fallback), std::move(help),
          [=](const std::string& text, Config& config) -> Status {
            if (text.empty()) return InvalidArgumentError("must not be empty");
            config.*field = text;
            return {};
          }};
}

template <typename T>
OptionSpec Choice(std::string name, std::string choices, T Config::*field,
                  Result<T> (*parse)(std::string_view), std::string fallback, std::string help) {
  return {std::move(name), choices, std::move(fallback), std::move(help),
          [=](const std::string& text, Config& config) -> Status {
            Result<T> value = parse(text);
            if (!value.ok()) return InvalidArgumentError("one of " + choices);
            config.*field = *value;
            return {};
          }};
}

OptionSpec Size(std::string name, uint64_t Config::*field, uint64_t low, bool zero,
                std::string fallback, std::string help) {
  return {std::move(name), "SIZE", std::move(fallback), std::move(help),
          [=](const std::string& text, Config& config) -> Status {
            const Result<uint64_t> value = ParseSize(text);
            if (!value.ok() || (*value < low && !(zero && *value == 0))) {
              return InvalidArgumentError("a size such as 64M or 1G, at least " + FormatBytes(low) +
                                          (zero ? ", or 0" : ""));
            }
            config.*field = *value;
            return {};
          }};
}

std::vector<OptionSpec> MakeTable() {
  return {
      Path("--model", "FILE", &Config::model, "the built-in model", "the model, a GGUF file"),
      Size("--ram-ceiling", &Config::ram_ceiling_bytes, kMiB, true, "0",
           "the most RAM for everything, page cache included; 0: the limit in force"),
      Choice<Enforcement>("--enforcement", "cgroup|process|none", &Config::enforcement,
                          ParseEnforcement, "cgroup",
                          "what enforces the ceiling; process: resource limits, weaker"),
      Path("--state-dir", "DIR", &Config::state_dir, "/var/lib/thimble",
           "journal and cache are kept here"),
      {"--listen", "ADDRESS", "unix:/run/thimble/thimble.sock",
       "unix:PATH, 127.0.0.1:PORT or [::1]:PORT",
       [](const std::string& text, Config& config) -> Status {
         const Result<ListenAddress> address = ParseListenAddress(text);
         if (!address.ok()) return address.status();
         config.listen = text;
         return {};
       }},
      {"--http", "ADDRESS", "127.0.0.1:9464",
       "health and metrics: 127.0.0.1:PORT, [::1]:PORT, unix:PATH, or off",
       [](const std::string& text, Config& config) -> Status {
         if (text != "off") {
           const Result<ListenAddress> address = ParseListenAddress(text);
           if (!address.ok()) {
             return InvalidArgumentError("off, " + address.status().message());
           }
         }
         config.http = text;
         return {};
       }},
      Count("--context", &Config::context_tokens, 1, 1U << 20, "the model's own, at most 2048",
            "tokens of one request, prompt and generated"),
      Count("--max-active", &Config::max_active, 1, 64, "4", "requests computed together"),
      Count("--max-queue", &Config::max_queue, 0, 10000, "64", "requests that may wait"),
      Choice<Granularity>("--granularity", "head|op|auto", &Config::granularity, ParseGranularity,
                          "auto", "how stages are grouped; head: one by one, the least RAM"),
      Count("--prompt-chunk", &Config::prompt_chunk, 1, 1024, "64",
            "prompt tokens in one pass, at most"),
      Choice<ReaderBackend>("--reader", "auto|io_uring|aio|direct|buffered", &Config::reader,
                            ParseReaderBackend, "auto", "how weights are read from flash"),
      Size("--cache-size", &Config::cache_bytes, 16 * kMiB, false, "1G",
           "the most disk for the cache in the state directory"),
  };
}

}  // namespace

const std::vector<OptionSpec>& OptionTable() {
  static const std::vector<OptionSpec> table = MakeTable();
  return table;
}

Result<Invocation> ParseArguments(int argc, const char* const* argv) {
  Invocation invocation;
  CLI::App app("Serves text generation from language models within a hard RAM ceiling.",
               "thimbled");
  app.set_version_flag("--version", "thimbled " THIMBLE_VERSION);
  app.set_help_flag("--help,-h", "Print this help and exit");
  for (const OptionSpec& spec : OptionTable()) {
    app.add_option_function<std::string>(
           spec.name,
           [&spec, &invocation](const std::string& text) {
             const Status status = spec.parse(text, invocation.config);
             if (status.ok()) return;
             throw CLI::ValidationError(spec.name + " " + text + ": " + status.message());
           },
           spec.help + " (default: " + spec.fallback + ")")
        ->type_name(spec.unit);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    invocation.print = app.help();
  } catch (const CLI::CallForVersion&) {
    invocation.print = app.version() + "\n";
  } catch (const CLI::Error& error) {
    return InvalidArgumentError(error.what());
  } catch (const std::exception& error) {
    return InternalError(std::string("read the options: ") + error.what());
  }
  return invocation;
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

}  // namespace thimble
