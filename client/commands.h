// The subcommands of `thimble`: what the command line fills in, and what runs it. Options that are
// not given are left to the daemon's own defaults. Called by: main. Memory: some strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace thimble {

// How tokens are drawn; shared by generate and chat.
struct SamplingFlags {
  std::optional<uint32_t> max_tokens;
  std::optional<float> temperature;
  std::optional<uint32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repeat_penalty;
  std::optional<uint32_t> repeat_last_n;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
};

struct GenerateCommand {
  std::string prompt;                 // "-": standard input
  std::optional<std::string> tokens;  // "5 61 72", instead of a prompt
  SamplingFlags sampling;
  bool ignore_eos = false;
  bool parse_special = false;
  std::string request_id;
  uint32_t reconnect_seconds = 60;  // with a request_id, after a lost connection
  bool detach = false;
  bool json = false;
  bool stats = false;
};

struct ChatCommand {
  std::string system;  // instructions for the model; empty: none
  SamplingFlags sampling;
  bool stats = false;
};

struct TopCommand {
  double interval_seconds = 1;
  uint32_t count = 0;  // plain lines, then the end; 0: until it is stopped
};

struct StatusCommand {
  bool json = false;
};

struct HealthCommand {
  bool live = false;  // that the daemon answers, not that it is ready
  bool quiet = false;
};

struct VersionCommand {
  bool json = false;
};

// The token ids of a text: of the daemon's model, or of a file without a daemon.
struct TokenizeCommand {
  std::string model;     // empty: the daemon's
  std::string text;      // "-": standard input
  bool special = false;  // special tokens in the text become what they name
  bool pieces = false;   // the bytes of each token too
  bool json = false;
};

// The plan of the daemon, or of a model under a ceiling without a daemon.
struct PlanCommand {
  std::string model;        // empty: the daemon's
  std::string ram_ceiling;  // "16M"; empty: none
  std::string granularity = "auto";
  uint32_t max_active = 4;
  uint32_t prompt_chunk = 0;
  uint32_t draft_tokens = 8;
  uint32_t context_tokens = 0;  // 0: the daemon's default
  bool json = false;
};

// Without a daemon: the logits after each of some tokens, as float32 rows in a file.
struct LogitsCommand {
  std::string model;
  std::string tokens;  // "5 61 72"
  std::string out;
  std::string ram_ceiling;
  std::string granularity = "auto";
  uint32_t prompt_chunk = 64;
};

// The daemon's speed at a list of ceilings, see client/bench.cc.
struct BenchCommand {
  std::string model;
  std::string ceilings = "64M,40M,32M,24M,16M";
  uint32_t prompt_tokens = 128;
  uint32_t tokens = 64;
  uint32_t context_tokens = 512;
  uint32_t requests = 1;  // at once
  uint32_t runs = 5;
  std::string flash_rate;      // "40M"; empty: as fast as it is
  std::string peer;            // "llama-cpp"; empty: none
  std::string thimbled;        // empty: beside this program, else on the PATH
  std::string daemon_options;  // "--reader aio --prompt-chunk 32"
  std::string scratch = "/var/tmp";
  int cpu = -1;
  std::string csv;
  std::string svg;
  bool json = false;
};

// How fast a file is read from flash.
struct FlashCommand {
  std::string file;
  bool rate_only = false;  // the fastest way's bytes a second and name, for thimble bench
  std::string way;         // only that one, by its name; empty: all
  bool json = false;
};

// Each returns the process's exit code, having printed what went wrong.
int RunGenerateCommand(const std::string& connect, const GenerateCommand& command);
int RunChatCommand(const std::string& connect, const ChatCommand& command);
int RunTopCommand(const std::string& connect, const TopCommand& command);
int RunStatusCommand(const std::string& connect, const StatusCommand& command);
int RunHealthCommand(const std::string& connect, const HealthCommand& command);
int RunVersionCommand(const std::string& connect, const VersionCommand& command);
int RunTokenizeCommand(const std::string& connect, const TokenizeCommand& command);
int RunPlanCommand(const std::string& connect, const PlanCommand& command);
int RunLogitsCommand(const LogitsCommand& command);
int RunBenchCommand(const BenchCommand& command);
int RunFlashCommand(const FlashCommand& command);

}  // namespace thimble
