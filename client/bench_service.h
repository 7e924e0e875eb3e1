// thimbled as `thimble bench` measures it: started cold in a control group of its own, asked over
// gRPC as any client would, its own figures read before and after. Called by: bench.cc. Memory: a
// connection for each request at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/bench_child.h"
#include "client/bench_stats.h"
#include "client/client.h"
#include "storage/base/status.h"

namespace thimble {

struct BenchServiceOptions {
  std::string thimbled;
  std::string model;
  uint64_t ceiling_bytes = kNoCeiling;
  bool in_group = true;  // false: nothing enforces the ceiling
  uint32_t context_tokens = 0;
  uint32_t requests = 1;             // at once
  std::vector<std::string> options;  // further ones, as typed
  std::string directory;             // for the log and the state; must exist
  std::string socket;                // a path of at most 107 bytes
  std::vector<std::string> procs_files;
  int cpu = -1;
};

class BenchService {
 public:
  // Returns when the daemon is ready. An error has the last lines of its log.
  static Result<std::unique_ptr<BenchService>> Start(const BenchServiceOptions& options);

  // One run: `requests` generations at once of `tokens` tokens each, after different prompts of
  // `prompt_tokens` random ids below `vocab_size` that no run before had (`seed` tells the run).
  //  - prompt speed: all prompts' tokens from the first sending to the last first token;
  //  - generation speed: the sum over the requests of each one's tokens a second while all of them
  //    generate, its first token aside;
  //  - bytes, stalls and computing: between the daemon's own figures as of the last first token and
  //    as of the first end.
  Result<BenchSample> Run(uint32_t prompt_tokens, uint32_t tokens, uint32_t vocab_size,
                          uint64_t seed);

  [[nodiscard]] double start_seconds() const { return start_seconds_; }
  [[nodiscard]] Result<v1::GetStatusResponse> GetStatus() { return status_client_->GetStatus(); }
  // Ends it in order. An error where it did not end well.
  Status Stop();
  // Why it is not there any more; OK while it runs.
  Status Died();

 private:
  explicit BenchService(BenchServiceOptions options) : options_(std::move(options)) {}
  const BenchServiceOptions options_;
  std::string address_;
  std::unique_ptr<Child> child_;
  std::unique_ptr<Client> status_client_;
  double start_seconds_ = 0;
};

}  // namespace thimble
