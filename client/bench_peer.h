// llama.cpp beside us: the same file, under the same cap, on the same processor, one thread. It is
// no part of the build; what is there is used: `llama-completion` or `llama-cli` on the PATH, else
// PyPI's llama-cpp-python. Called by: bench.cc. Memory: its output.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "client/bench_stats.h"
#include "storage/base/status.h"

namespace thimble {

struct PeerOptions {
  std::string model;
  std::string prompt;  // text, of about as many tokens as ours
  uint32_t tokens = 64;
  uint32_t context_tokens = 512;
  std::string directory;  // for the prompt and its output; must exist
  std::vector<std::string> procs_files;
  int cpu = -1;
  std::chrono::seconds longest{120};  // then it is killed
};

// One way of starting it.
struct PeerVariant {
  std::string name;     // "default", "no-repack, batches of 32"
  std::string program;  // a path, or the name of a Python
  bool python = false;
  bool small = false;  // weights as they are in the file, small batches: best where memory is short
};

// What is there, both variants of it, the small one first. NOT_FOUND with what was looked for.
Result<std::vector<PeerVariant>> FindLlamaCpp();

// One cold process: its own figures of prompt and generation. An error where it does not come to
// its end in time or is killed.
Result<BenchSample> RunPeer(const PeerVariant& variant, const PeerOptions& options);

// The speeds from llama.cpp's "prompt eval time = ... tokens per second" and "eval time = ..."
// lines, which the Python driver prints as well.
Result<BenchSample> ParseLlamaTimings(std::string_view output);

}  // namespace thimble
