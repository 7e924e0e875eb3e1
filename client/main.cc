// thimble: the command. options.cc reads the command line, the work is in the commands.
#include <csignal>
#include <cstdio>
#include <exception>

#include "client/common.h"
#include "client/options.h"

namespace thimble {
namespace {

// One line that names the command, and where to read on; CLI11's own say neither.
int ExplainUsage(const CLI::App& app, const std::string& what) {
  std::string command = "thimble";
  for (const CLI::App* sub : app.get_subcommands()) command += " " + sub->get_name();
  (void)std::fprintf(stderr, "%s: %s\nSee: %s --help\n", command.c_str(), what.c_str(),
                     command.c_str());
  return kExitUsage;
}

// CLI11 would say "A subcommand is required" without the word that is none.
int ExplainMissingCommand(const CLI::App& app) {
  const std::vector<std::string> words = app.remaining();
  std::string commands;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    commands += (commands.empty() ? "" : ", ") + sub->get_name();
  }
  return ExplainUsage(
      app, (words.empty() ? "a command is missing" : "\"" + words.front() + "\" is no command") +
               "; there are " + commands);
}

int Run(int argc, char** argv) {
  CLI::App app("Text from thimbled, the daemon that generates within a hard RAM ceiling.",
               "thimble");
  CommandLine line;
  AddOptions(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    if (app.get_subcommands().empty() && error.get_name() == "RequiredError") {
      return ExplainMissingCommand(app);
    }
    return ExplainUsage(app, error.what());
  }
  if (app.got_subcommand("generate")) return RunGenerateCommand(line.connect, line.generate);
  if (app.got_subcommand("chat")) return RunChatCommand(line.connect, line.chat);
  if (app.got_subcommand("top")) return RunTopCommand(line.connect, line.top);
  if (app.got_subcommand("status")) return RunStatusCommand(line.connect, line.status);
  if (app.got_subcommand("plan")) return RunPlanCommand(line.connect, line.plan);
  if (app.got_subcommand("tokenize")) return RunTokenizeCommand(line.connect, line.tokenize);
  if (app.got_subcommand("health")) return RunHealthCommand(line.connect, line.health);
  if (app.got_subcommand("version")) return RunVersionCommand(line.connect, line.version);
  if (app.got_subcommand("bench")) return RunBenchCommand(line.bench);
  if (app.got_subcommand("flash")) return RunFlashCommand(line.flash);
  return RunLogitsCommand(line.logits);
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  (void)std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is seen where it is written to
  try {
    return thimble::Run(argc, argv);
  } catch (const std::exception& error) {
    thimble::PrintError(thimble::InternalError(error.what()), false);
    return thimble::kExitFailed;
  }
}
