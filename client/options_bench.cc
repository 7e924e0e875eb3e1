// The options of `thimble bench` and `thimble flash`.
#include "client/options.h"

namespace thimble {

void AddBench(CLI::App& app, BenchCommand& c) {
  CLI::App& sub = AddCommand(
      app, "bench", "Speed, memory and flash of thimbled at a list of ceilings, beside the bound",
      "thimble bench --model model.gguf --ceilings 64M,24M");
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
  CLI::App& sub =
      AddCommand(app, "flash", "How fast a file is read from flash", "thimble flash model.gguf");
  sub.add_option("FILE", c.file, "a large file, as a model")->required();
  sub.add_flag("--json", c.json, "one JSON object a way of reading");
  // What `thimble bench` asks of it.
  sub.add_flag("--rate-only", c.rate_only)->group("");
  sub.add_option("--way", c.way)->group("");
}

}  // namespace thimble
