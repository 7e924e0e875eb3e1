// A program of the build, not installed: writes what the table of options says into the texts that
// are installed, so that none of them can disagree with thimbled.
//   options_text TEMPLATE OUTPUT
// copies the template; a line "@OPTIONS FORM@" becomes all options in that form: man (the command
// line, roff), keys (the configuration file's manual, roff), conf (the default configuration file),
// bash, zsh, fish (completions). "@VERSION@" anywhere becomes the version. Memory: some KiB.
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <string_view>

#include "daemon/config_sources.h"

namespace thimble {
namespace {

void Replace(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

// For troff: dashes that are typed are minus signs, a leading dot is no request.
std::string Roff(std::string text) {
  Replace(text, "\\", "\\e");
  Replace(text, "-", "\\-");
  if (text.starts_with('.') || text.starts_with('\'')) text.insert(0, "\\&");
  return text;
}

std::string Sentence(const OptionSpec& spec) {
  std::string text = spec.help;
  if (!spec.range.empty()) text += " (" + spec.range + ")";
  text += ". Default: " + spec.fallback + ".";
  if (spec.rereadable) text += " SIGHUP rereads it.";
  return text;
}

std::string Man(const OptionSpec& spec) {
  const std::string value = spec.is_flag() ? "" : " \\fI" + Roff(spec.unit) + "\\fR";
  return ".TP\n\\fB\\-\\-" + Roff(spec.name) + "\\fR" + value + "\n" + Roff(Sentence(spec)) +
         "\nEnvironment: \\fB" + VariableName(spec.name) + "\\fR.\n";
}

std::string Keys(const OptionSpec& spec) {
  const std::string unit = spec.is_flag() ? "yes|no" : spec.unit;
  return ".TP\n\\fB" + Roff(spec.name) + "\\fR = \\fI" + Roff(unit) + "\\fR\n" +
         Roff(Sentence(spec)) + "\n";
}

std::string Conf(const OptionSpec& spec) {
  const bool words = spec.show(Config()) != spec.fallback;
  std::string text = "# " + spec.help;
  if (!spec.range.empty()) text += " (" + spec.range + ")";
  const std::string unit = spec.is_flag() ? "yes|no" : spec.unit;
  if (words) text += ". Default: " + spec.fallback;
  return text + "\n#" + spec.name + " = " + (words ? unit : spec.fallback) + "\n\n";
}

// "head op auto" of "head|op|auto"; empty where the unit is no choice.
std::string Choices(const OptionSpec& spec) {
  if (spec.unit.find('|') == std::string::npos) return {};
  std::string words = spec.unit;
  Replace(words, "|", " ");
  return words;
}

bool IsPath(const OptionSpec& spec) { return spec.unit == "FILE" || spec.unit == "DIR"; }

std::string Bash(const OptionSpec& spec) {
  const std::string words = Choices(spec);
  if (!words.empty()) return "    --" + spec.name + ") words=\"" + words + "\" ;;\n";
  if (spec.unit == "DIR") return "    --" + spec.name + ") directories=yes ;;\n";
  if (spec.unit == "FILE") return "    --" + spec.name + ") files=yes ;;\n";
  return spec.is_flag() ? "" : "    --" + spec.name + ") return ;;\n";
}

// Between [] and in front of ':' a shell's own signs are escaped.
std::string ZshText(std::string text) {
  for (const char* sign : {"\\", "[", "]", ":"}) Replace(text, sign, std::string("\\") + sign);
  Replace(text, "'", "'\\''");
  return text;
}

std::string Zsh(const OptionSpec& spec) {
  std::string action;
  if (const std::string words = Choices(spec); !words.empty()) {
    action = ":value:(" + words + ")";
  } else if (IsPath(spec)) {
    action = std::string(":path:") + (spec.unit == "DIR" ? "_files -/" : "_files");
  } else if (!spec.is_flag()) {
    action = ":" + ZshText(spec.unit) + ":";
  }
  return "  '--" + spec.name + "[" + ZshText(spec.help) + "]" + action + "' \\\n";
}

std::string Fish(const OptionSpec& spec) {
  std::string help = spec.help;
  Replace(help, "\\", "\\\\");
  Replace(help, "'", "\\'");
  std::string line = "complete -c thimbled -l " + spec.name + " -d '" + help + "'";
  if (const std::string words = Choices(spec); !words.empty()) {
    line += " -x -a '" + words + "'";
  } else if (IsPath(spec)) {
    line += " -r -F";
  } else if (!spec.is_flag()) {
    line += " -x";
  }
  return line + "\n";
}

// "--model --ram-ceiling ...", for the word list of bash.
std::string Names(const OptionSpec& spec) { return "  --" + spec.name + "\n"; }

int Write(const char* from, const char* to) {
  const std::map<std::string, std::function<std::string(const OptionSpec&)>> forms = {
      {"man", Man}, {"keys", Keys}, {"conf", Conf},  {"bash", Bash},
      {"zsh", Zsh}, {"fish", Fish}, {"names", Names}};
  std::ifstream in(from);
  std::ofstream out(to);
  std::string line;
  while (std::getline(in, line)) {
    constexpr std::string_view kMark = "@OPTIONS ";
    if (!line.starts_with(kMark) || !line.ends_with('@')) {
      Replace(line, "@VERSION@", THIMBLE_VERSION);
      out << line << '\n';
      continue;
    }
    const auto form = forms.find(line.substr(kMark.size(), line.size() - kMark.size() - 1));
    if (form == forms.end()) {
      std::cerr << from << ": there is no form " << line << '\n';
      return 1;
    }
    for (const OptionSpec& spec : OptionTable()) out << form->second(spec);
  }
  out.flush();
  if (in.eof() && out) return 0;
  std::cerr << "copy " << from << " to " << to << ": failed\n";
  return 1;
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: options_text TEMPLATE OUTPUT\n";
    return 2;
  }
  return thimble::Write(argv[1], argv[2]);
}
