#include "daemon/config_sources.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>
#include <utility>

#include "daemon/config_file.h"

namespace thimble {
namespace {

constexpr std::string_view kPrefix = "THIMBLE_";
constexpr std::string_view kConfigVariable = "THIMBLE_CONFIG";
constexpr std::string_view kClientVariable = "THIMBLE_CONNECT";

// The position in the table; its size where there is no such option.
size_t FindOption(std::string_view name) {
  const auto& table = OptionTable();
  return static_cast<size_t>(
      std::find_if(table.begin(), table.end(),
                   [&](const OptionSpec& spec) { return spec.name == name; }) -
      table.begin());
}

// Takes one value after another, from the weakest source to the strongest. Values that a stronger
// source replaces are read as well: a mistake in the file is one, whatever stands before it.
class Reading {
 public:
  explicit Reading(Invocation& invocation) : invocation_(invocation) {
    invocation_.sources.assign(OptionTable().size(), "default");
  }

  // `where` is what an error begins with.
  void Take(size_t option, const std::string& text, const std::string& source,
            const std::string& where) {
    const Status status = OptionTable()[option].parse(text, invocation_.config);
    if (!status.ok()) {
      problems.push_back(where + ": " + status.message());
      return;
    }
    invocation_.sources[option] = source;
  }

  // "/etc/thimble/thimbled.conf:3: listen = 0.0.0.0:1: other machines ..."
  void CheckConflicts() {
    for (const Conflict& conflict : FindConflicts(invocation_.config)) {
      const size_t option = FindOption(conflict.name);
      problems.push_back(invocation_.sources[option] + ": --" + conflict.name + " " +
                         OptionTable()[option].show(invocation_.config) + ": " + conflict.message);
    }
  }

  std::vector<std::string> problems;

 private:
  Invocation& invocation_;
};

struct CommandLine {
  std::string print;
  std::string config_file;
  bool check = false;
  std::vector<std::string> texts;  // beside OptionTable()
  std::vector<bool> given;
};

// What CLI11 makes of the table. `line` must outlive the app.
void DescribeOptions(CLI::App& app, CommandLine& line) {
  app.set_version_flag("--version", "thimbled " THIMBLE_VERSION);
  app.set_help_flag("--help,-h", "Print this help and exit");
  app.add_option("--config", line.config_file,
                 std::string("the configuration file (default: ") + kDefaultConfigFile +
                     ", if it is there) [THIMBLE_CONFIG]")
      ->type_name("FILE");
  app.add_flag("--check-config", line.check,
               "Check every option and the model's header, print the values and where they come "
               "from, and exit");
  for (size_t i = 0; i < OptionTable().size(); ++i) {
    const OptionSpec& spec = OptionTable()[i];
    const std::string range = spec.range.empty() ? "" : spec.range + "; ";
    const std::string help = spec.help + " (" + range + "default: " + spec.fallback + ") [" +
                             VariableName(spec.name) + "]";
    const std::string name = "--" + spec.name;
    if (spec.is_flag()) {  // "--allow-remote", or "--allow-remote=no"
      app.add_flag(name, line.texts[i], help)->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    } else {
      app.add_option(name, line.texts[i], help)->type_name(spec.unit);
    }
  }
  app.footer(std::string(
                 "Each option can also stand in the environment, under the name in [], or in the "
                 "configuration file,\nas \"max-active = 4\". The command line counts before the "
                 "environment, the environment before the file.\nSizes are 4096, 512K, 64M, 1G, in "
                 "powers of 1024. SIGHUP rereads them; what then takes effect: ") +
             [] {
               std::string names;
               for (const OptionSpec& spec : OptionTable()) {
                 if (spec.rereadable) names += (names.empty() ? "--" : ", --") + spec.name;
               }
               return names;
             }() +
             ".\nExit status: 0 after SIGTERM or SIGINT, 1 when something failed (the log says "
             "what), 2 for "
             "options that make no sense.");
}

Result<CommandLine> ReadCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  line.texts.resize(OptionTable().size());
  line.given.resize(OptionTable().size());
  CLI::App app("Serves text generation from language models within a hard RAM ceiling.",
               "thimbled");
  try {
    DescribeOptions(app, line);
    app.parse(argc, argv);
    if (app.get_option("--config")->count() > 0 && line.config_file.empty()) {
      return InvalidArgumentError("--config: must not be empty");
    }
    for (size_t i = 0; i < line.texts.size(); ++i) {
      line.given[i] = app.get_option("--" + OptionTable()[i].name)->count() > 0;
    }
  } catch (const CLI::CallForHelp&) {
    line.print = app.help();
  } catch (const CLI::CallForVersion&) {
    line.print = app.version() + "\n";
  } catch (const CLI::Error& error) {
    return InvalidArgumentError(error.what());
  } catch (const std::exception& error) {
    return InternalError(std::string("read the options: ") + error.what());
  }
  return line;
}

void TakeFile(const std::string& file, bool required, Invocation& invocation, Reading& reading) {
  const Result<std::string> text = ReadConfigFile(file);
  if (!text.ok()) {
    const bool absent = text.status().code() == StatusCode::kNotFound;
    if (required || !absent) reading.problems.push_back(text.status().message());
    return;
  }
  invocation.config_file = file;
  for (const ConfigLine& line : ParseConfigText(*text, file, reading.problems)) {
    const std::string source = file + ":" + std::to_string(line.line);
    const size_t option = FindOption(line.key);
    if (option < OptionTable().size()) {
      reading.Take(option, line.value, source, source + ": " + line.key + " = " + line.value);
    } else {
      reading.problems.push_back(source + ": " + line.key + ": there is no such option");
    }
  }
}

void TakeEnvironment(const char* const* environment, Reading& reading) {
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    if (!entry.starts_with(kPrefix)) continue;
    const size_t equals = std::min(entry.find('='), entry.size());
    const std::string name(entry.substr(0, equals));
    if (name == kConfigVariable || name == kClientVariable) continue;
    const std::string text(entry.substr(std::min(equals + 1, entry.size())));
    const auto& table = OptionTable();
    size_t option = 0;
    while (option < table.size() && VariableName(table[option].name) != name) ++option;
    if (option < table.size()) {
      reading.Take(option, text, name, std::string(name).append("=").append(text));
    } else {
      reading.problems.push_back(name + ": there is no such option (in the environment)");
    }
  }
}

// Empty where the environment names none.
std::string FileOfEnvironment(const char* const* environment) {
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    if (entry.starts_with(kConfigVariable) && entry.substr(kConfigVariable.size()).starts_with('='))
      return std::string(entry.substr(kConfigVariable.size() + 1));
  }
  return {};
}

}  // namespace

std::string VariableName(const std::string& option) {
  std::string name(kPrefix);
  for (const char c : option) {
    name += c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return name;
}

Result<Invocation> ReadOptions(int argc, const char* const* argv, const char* const* environment,
                               const std::string& default_file) {
  Invocation invocation;
  THIMBLE_ASSIGN_OR_RETURN(const CommandLine line, ReadCommandLine(argc, argv));
  if (!line.print.empty()) {
    invocation.print = line.print;
    return invocation;
  }
  invocation.check = line.check;
  Reading reading(invocation);
  std::string file = line.config_file;
  if (file.empty()) file = FileOfEnvironment(environment);
  const bool named = !file.empty();
  TakeFile(named ? file : default_file, named, invocation, reading);
  TakeEnvironment(environment, reading);
  for (size_t i = 0; i < line.texts.size(); ++i) {
    if (!line.given[i]) continue;
    const std::string where = "--" + OptionTable()[i].name + " " + line.texts[i];
    reading.Take(i, line.texts[i], "command line", where);
  }
  // Values that were refused are not there to be compared.
  if (reading.problems.empty()) reading.CheckConflicts();
  if (reading.problems.empty()) return invocation;
  std::string all;
  for (const std::string& problem : reading.problems) all += (all.empty() ? "" : "\n") + problem;
  return InvalidArgumentError(all);
}

}  // namespace thimble
