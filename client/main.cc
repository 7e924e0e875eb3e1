// thimble: the command. Options are read here, the work is in the commands.
#include <CLI/CLI.hpp>
#include <csignal>

#include "client/commands.h"

namespace thimble {
namespace {

constexpr const char* kExitStatuses =
    "Exit status: 0 success, 1 an error (of the daemon or of the command's own work), 2 options "
    "that make no sense, 3 no daemon at --connect, 130 interrupted.";

// Their texts are read where the command runs.
void AddCeiling(CLI::App& app, std::string& ram_ceiling, std::string& granularity) {
  app.add_option("--ram-ceiling", ram_ceiling, "for example 16M (default: none)");
  app.add_option("--granularity", granularity, "head, op or auto (default: auto)");
}

void AddGenerate(CLI::App& app, GenerateCommand& c) {
  CLI::App& sub = *app.add_subcommand("generate", "Generate text after a prompt and stream it");
  CLI::Option* prompt = sub.add_option("PROMPT", c.prompt, "the prompt; -: standard input");
  CLI::Option* tokens =
      sub.add_option("--tokens", c.tokens, "token ids instead of a prompt: \"5 61 72\"");
  prompt->excludes(tokens);
  sub.add_option("--max-tokens", c.max_tokens, "generated tokens, at most (default: 128)");
  sub.add_option("--temperature", c.temperature, "0: always the likeliest token (default: 0.8)");
  sub.add_option("--top-k", c.top_k, "of the K likeliest tokens; 0: off (default: 40)");
  sub.add_option("--top-p", c.top_p,
                 "of the likeliest tokens that make up P; 1: off (default: 0.95)");
  sub.add_option("--min-p", c.min_p,
                 "of those at least P times as likely as the likeliest; 0: off (default: 0.05)");
  sub.add_option("--repeat-penalty", c.repeat_penalty, "above 1: against repetition (default: 1)");
  sub.add_option("--repeat-last-n", c.repeat_last_n,
                 "tokens the penalties look back (default: 64)");
  sub.add_option("--presence-penalty", c.presence_penalty, "-2 to 2 (default: 0)");
  sub.add_option("--frequency-penalty", c.frequency_penalty, "-2 to 2 (default: 0)");
  sub.add_option("--seed", c.seed, "the same seed gives the same text (default: chosen)");
  sub.add_option("--stop", c.stop, "end before this text; may be given up to 8 times")
      ->type_size(1)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub.add_flag("--ignore-eos", c.ignore_eos, "go on after the model's end of text");
  sub.add_flag("--parse-special", c.parse_special, "\"<|im_start|>\" in the prompt is that token");
  sub.add_option("--request-id", c.request_id, "a name; sent again, it attaches to that request");
  sub.add_flag("--detach", c.detach, "goes on when this client goes away");
  sub.add_flag("--json", c.json, "one JSON object a line");
  sub.add_flag("--stats", c.stats, "a line of statistics on standard error");
  sub.callback([prompt, tokens] {
    if (prompt->count() == 0 && tokens->count() == 0) {
      throw CLI::RequiredError("PROMPT or --tokens");
    }
  });
}

void AddTokenize(CLI::App& app, TokenizeCommand& c) {
  CLI::App& sub = *app.add_subcommand("tokenize", "The token ids of a text, without a daemon");
  sub.add_option("--model", c.model, "a GGUF file")->required();
  sub.add_option("TEXT", c.text, "-: standard input")->required();
  sub.add_flag("--special", c.special, "\"<|im_start|>\" in the text is that token");
  sub.add_flag("--json", c.json, "as a JSON object");
}

void AddPlan(CLI::App& app, PlanCommand& c) {
  CLI::App& sub = *app.add_subcommand("plan", "The plan of a model's stages, without a daemon");
  sub.add_option("--model", c.model, "a GGUF file")->required();
  AddCeiling(sub, c.ram_ceiling, c.granularity);
  sub.add_option("--max-active", c.max_active, "requests computed together (default: 4)")
      ->check(CLI::Range(1, 64));
  sub.add_option("--prompt-chunk", c.prompt_chunk, "prompt tokens in one pass (default: 64)")
      ->check(CLI::Range(1, 1024));
  sub.add_flag("--json", c.json, "as a JSON object");
}

void AddLogits(CLI::App& app, LogitsCommand& c) {
  CLI::App& sub =
      *app.add_subcommand("logits", "The logits after each of some tokens, without a daemon");
  sub.add_option("--model", c.model, "a GGUF file")->required();
  sub.add_option("--tokens", c.tokens, "token ids: \"5 61 72\"")->required();
  sub.add_option("--out", c.out, "the file to write: little-endian float32 rows")->required();
  AddCeiling(sub, c.ram_ceiling, c.granularity);
  sub.add_option("--prompt-chunk", c.prompt_chunk, "tokens in one pass (default: 64)")
      ->check(CLI::Range(1, 1024));
}

void AddBench(CLI::App& app, BenchCommand& c) {
  CLI::App& sub = *app.add_subcommand(
      "bench", "Speed, memory and flash of thimbled at a list of ceilings, beside the bound");
  sub.add_option("--model", c.model, "a GGUF file")->required();
  sub.add_option("--ceilings", c.ceilings,
                 "for example 64M,16M,none (default: " + c.ceilings + ")");
  sub.add_option("--prompt", c.prompt_tokens, "tokens of the prompt (default: 128)")
      ->check(CLI::Range(1, 1 << 20));
  sub.add_option("--tokens", c.tokens, "generated tokens of a run (default: 64)")
      ->check(CLI::Range(4, 1 << 20));
  sub.add_option("--context", c.context_tokens, "of a request (default: 512)")
      ->check(CLI::Range(8, 1 << 20));
  sub.add_option("--requests", c.requests,
                 "at once; their speed is that of all together (default: 1)")
      ->check(CLI::Range(1, 24));
  sub.add_option("--runs", c.runs, "after one cold start; the median counts (default: 5)")
      ->check(CLI::Range(1, 1000));
  sub.add_option(
      "--flash-rate", c.flash_rate,
      "slow reading down to so many bytes a second, like an SD card's: 40M (needs root)");
  sub.add_option("--peer", c.peer, "llama-cpp: it too, on the same file under the same caps");
  sub.add_option("--thimbled", c.thimbled, "the daemon to start (default: beside this program)");
  sub.add_option("--daemon-options", c.daemon_options, "for the daemon: \"--reader aio\"");
  sub.add_option("--scratch", c.scratch,
                 "where the daemon's state lies meanwhile (default: /var/tmp)");
  sub.add_option("--cpu", c.cpu, "the one processor that what is measured runs on (default: any)")
      ->check(CLI::Range(0, 1023));
  sub.add_option("--csv", c.csv, "write everything to this file");
  sub.add_option("--svg", c.svg, "write a plot to this file");
  sub.add_flag("--json", c.json, "one JSON object a ceiling instead of a table");
}

void AddFlash(CLI::App& app, FlashCommand& c) {
  CLI::App& sub = *app.add_subcommand("flash", "How fast a file is read from flash");
  sub.add_option("FILE", c.file, "a large file, as a model")->required();
  sub.add_flag("--json", c.json, "one JSON object a way of reading");
  sub.add_flag("--rate-only", c.rate_only)->group("");
}

int Run(int argc, char** argv) {
  CLI::App app("Text from thimbled, the daemon that generates within a hard RAM ceiling.",
               "thimble");
  app.footer(kExitStatuses);
  app.set_version_flag("--version", "thimble " THIMBLE_VERSION);
  app.require_subcommand(1);
  std::string connect = "unix:/run/thimble/thimble.sock";
  app.add_option("--connect", connect,
                 "unix:PATH, 127.0.0.1:PORT or [::1]:PORT (default: " + connect + ")");
  GenerateCommand generate;
  StatusCommand status;
  TokenizeCommand tokenize;
  PlanCommand plan;
  LogitsCommand logits;
  AddGenerate(app, generate);
  app.add_subcommand("status", "What the daemon is and does now")
      ->add_flag("--json", status.json, "as a JSON object");
  AddTokenize(app, tokenize);
  AddPlan(app, plan);
  AddLogits(app, logits);
  BenchCommand bench;
  FlashCommand flash;
  AddBench(app, bench);
  AddFlash(app, flash);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    // CLI11 would say "A subcommand is required" without the word that is none.
    const std::vector<std::string> words = app.remaining();
    if (app.get_subcommands().empty() && !words.empty()) {
      PrintError(InvalidArgumentError("\"" + words.front() + "\" is no command (see --help)"),
                 false);
      return kExitUsage;
    }
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;  // prints the help or the error
  }
  if (app.got_subcommand("generate")) return RunGenerateCommand(connect, generate);
  if (app.got_subcommand("status")) return RunStatusCommand(connect, status);
  if (app.got_subcommand("tokenize")) return RunTokenizeCommand(tokenize);
  if (app.got_subcommand("plan")) return RunPlanCommand(plan);
  if (app.got_subcommand("bench")) return RunBenchCommand(bench);
  if (app.got_subcommand("flash")) return RunFlashCommand(flash);
  return RunLogitsCommand(logits);
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
