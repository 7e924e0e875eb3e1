#include "client/options.h"

#include "client/common.h"

namespace thimble {
namespace {

constexpr const char* kExitStatuses =
    "Exit status: 0 success, 1 an error (of the daemon or of the command's own work),\n"
    "2 options that make no sense, 3 no daemon at --connect, 130 interrupted.";
constexpr const char* kHealthExitStatuses =
    "Exit status: 0 yes, 1 no (nor where no daemon answers), 2 options that make no sense.";

// Their texts are read where the command runs.
void AddCeiling(CLI::App& app, std::string& ram_ceiling, std::string& granularity,
                CLI::Option* model) {
  for (CLI::Option* option :
       {app.add_option("--ram-ceiling", ram_ceiling, "for example 16M (default: none)"),
        app.add_option("--granularity", granularity, "head, op or auto (default: auto)")}) {
    option->needs(model);
  }
}

void AddSampling(CLI::App& app, SamplingFlags& flags, uint32_t max_tokens) {
  app.add_option("--max-tokens", flags.max_tokens,
                 "generated tokens, at most (default: " + std::to_string(max_tokens) + ")");
  app.add_option("--temperature", flags.temperature,
                 "0: always the likeliest token (default: 0.8)");
  app.add_option("--top-k", flags.top_k, "of the K likeliest tokens; 0: off (default: 40)");
  app.add_option("--top-p", flags.top_p,
                 "of the likeliest tokens that make up P; 1: off (default: 0.95)");
  app.add_option("--min-p", flags.min_p,
                 "of those at least P times as likely as the likeliest; 0: off (default: 0.05)");
  app.add_option("--repeat-penalty", flags.repeat_penalty,
                 "above 1: against repetition (default: 1)");
  app.add_option("--repeat-last-n", flags.repeat_last_n,
                 "tokens the penalties look back (default: 64)");
  app.add_option("--presence-penalty", flags.presence_penalty, "-2 to 2 (default: 0)");
  app.add_option("--frequency-penalty", flags.frequency_penalty, "-2 to 2 (default: 0)");
  app.add_option("--seed", flags.seed, "the same seed gives the same text (default: chosen)");
  app.add_option("--stop", flags.stop, "end before this text; may be given up to 8 times")
      ->type_size(1)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void AddGenerate(CLI::App& app, GenerateCommand& c) {
  CLI::App& sub = AddCommand(app, "generate", "Generate text after a prompt and stream it",
                             "thimble generate \"Once upon a time\" --max-tokens 60");
  CLI::Option* prompt = sub.add_option("PROMPT", c.prompt, "the prompt; -: standard input");
  CLI::Option* tokens =
      sub.add_option("--tokens", c.tokens, "token ids instead of a prompt: \"5 61 72\"");
  AddSampling(sub, c.sampling, 128);
  sub.add_flag("--ignore-eos", c.ignore_eos, "go on after the model's end of text");
  sub.add_flag("--parse-special", c.parse_special, "\"<|im_start|>\" in the prompt is that token");
  CLI::Option* request_id =
      sub.add_option("--request-id", c.request_id,
                     "a name; sent again, it attaches to that request, also after a restart");
  sub.add_option("--reconnect", c.reconnect_seconds,
                 "seconds to try again after a lost connection (default: 60)")
      ->needs(request_id);
  sub.add_flag("--detach", c.detach, "goes on when this client goes away");
  sub.add_flag("--json", c.json, "one JSON object a line");
  sub.add_flag("--stats", c.stats, "a line of statistics on standard error");
  sub.callback([prompt, tokens] {
    if (prompt->count() == 0 && tokens->count() == 0) {
      throw CLI::ValidationError("PROMPT or --tokens is missing");
    }
    if (prompt->count() > 0 && tokens->count() > 0) {
      throw CLI::ValidationError("PROMPT and --tokens exclude each other");
    }
  });
}

void AddChat(CLI::App& app, ChatCommand& c) {
  CLI::App& sub =
      AddCommand(app, "chat", "Talk with the model in a terminal; /help there says more",
                 "thimble chat --system \"You answer in one sentence.\"");
  sub.add_option("--system", c.system, "instructions for the model");
  AddSampling(sub, c.sampling, 512);
  sub.add_flag("--stats", c.stats, "a line of statistics after each answer");
}

void AddTop(CLI::App& app, TopCommand& c) {
  CLI::App& sub = AddCommand(
      app, "top", "What the daemon does, live; plain lines where it is no terminal", "thimble top");
  sub.add_option("--interval", c.interval_seconds, "seconds between two views (default: 1)")
      ->check(CLI::Range(0.1, 60.0));
  sub.add_option("--count", c.count, "so many plain lines, then the end");
}

void AddPlan(CLI::App& app, PlanCommand& c) {
  CLI::App& sub =
      AddCommand(app, "plan", "The plan of the daemon, or of a model file under a ceiling",
                 "thimble plan --model model.gguf --ram-ceiling 24M");
  CLI::Option* model =
      sub.add_option("--model", c.model, "a GGUF file: its plan, without a daemon");
  AddCeiling(sub, c.ram_ceiling, c.granularity, model);
  sub.add_option("--max-active", c.max_active, "requests computed together (default: 4)")
      ->check(CLI::Range(1, 64))
      ->needs(model);
  sub.add_option("--prompt-chunk", c.prompt_chunk,
                 "prompt tokens in one pass (default: 0: what the budget holds, up to 256)")
      ->check(CLI::Range(0, 1024))
      ->needs(model);
  sub.add_option("--context", c.context_tokens,
                 "tokens of one request (default: 0: the model's own, at most 2048)")
      ->needs(model);
  sub.add_option("--draft-tokens", c.draft_tokens, "guessed tokens in one pass (default: 8)")
      ->check(CLI::Range(0, 16))
      ->needs(model);
  sub.add_flag("--json", c.json, "as a JSON object");
}

void AddTokenize(CLI::App& app, TokenizeCommand& c) {
  CLI::App& sub = AddCommand(app, "tokenize", "The token ids of a text",
                             "thimble tokenize \"Hello, world\" --pieces");
  sub.add_option("TEXT", c.text, "-: standard input")->required();
  sub.add_option("--model", c.model,
                 "a GGUF file: its tokenizer, without a daemon (default: the daemon's)");
  sub.add_flag("--special", c.special, "\"<|im_start|>\" in the text is that token");
  sub.add_flag("--pieces", c.pieces, "the text of each token too");
  sub.add_flag("--json", c.json, "as a JSON object");
}

void AddHealth(CLI::App& app, HealthCommand& c) {
  CLI::App& sub = *app.add_subcommand("health", "Whether the daemon is ready, as an exit status");
  sub.add_flag("--live", c.live, "only whether it lives");
  sub.add_flag("-q,--quiet", c.quiet, "print nothing but errors");
  sub.footer(kHealthExitStatuses);
}

void AddLogits(CLI::App& app, LogitsCommand& c) {
  CLI::App& sub = AddCommand(app, "logits", "The logits after each of some tokens of a model file",
                             "thimble logits --model model.gguf --tokens \"1 2 3\" --out rows.f32");
  CLI::Option* model = sub.add_option("--model", c.model, "a GGUF file")->required();
  sub.add_option("--tokens", c.tokens, "token ids: \"5 61 72\"")->required();
  sub.add_option("--out", c.out, "the file to write: little-endian float32 rows")->required();
  AddCeiling(sub, c.ram_ceiling, c.granularity, model);
  sub.add_option("--prompt-chunk", c.prompt_chunk, "tokens in one pass (default: 64)")
      ->check(CLI::Range(1, 1024));
}

}  // namespace

CLI::App& AddCommand(CLI::App& app, const char* name, const char* what, const char* example) {
  CLI::App& sub = *app.add_subcommand(name, what);
  sub.footer(std::string("Example: ") + example + "\n\n" + kExitStatuses);
  return sub;
}

void AddOptions(CLI::App& app, CommandLine& line) {
  line.connect = kDefaultAddress;
  app.footer(std::string("thimble COMMAND --help says more.\n\n") + kExitStatuses);
  app.set_version_flag("--version", "thimble " THIMBLE_VERSION);
  app.require_subcommand(1);
  app.add_option("--connect", line.connect,
                 "unix:PATH, 127.0.0.1:PORT or [::1]:PORT\n(default: " + line.connect + ")");
  AddGenerate(app, line.generate);
  AddChat(app, line.chat);
  AddTop(app, line.top);
  AddCommand(app, "status", "What the daemon is and does now", "thimble status --json")
      .add_flag("--json", line.status.json, "as a JSON object");
  AddPlan(app, line.plan);
  AddTokenize(app, line.tokenize);
  AddHealth(app, line.health);
  AddCommand(app, "version", "The versions of this command and of the daemon", "thimble version")
      .add_flag("--json", line.version.json, "as a JSON object");
  AddLogits(app, line.logits);
  AddBench(app, line.bench);
  AddFlash(app, line.flash);
}

}  // namespace thimble
