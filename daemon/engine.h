// The composition root: opens everything below the serving code in the order in which it depends on
// one another, owns it, and closes it in the opposite order.
//
//   ceiling -> model file -> model -> state directory -> tokenizer -> KV cache, stage store,
//   journal
//     -> plan -> runner -> scheduler
//
// The ceiling comes first, so that every page read or allocated afterwards is counted against it.
// Called by: main. Memory: the arena (plan.peak_bytes) and what the parts say of themselves.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "daemon/ceiling/ceiling.h"
#include "daemon/config.h"
#include "daemon/model/model.h"
#include "daemon/model/tokenizer.h"
#include "daemon/plan/plan.h"
#include "daemon/queue/scheduler.h"
#include "daemon/run/runner.h"
#include "daemon/run/speed_probe.h"
#include "daemon/status.h"
#include "storage/base/file.h"
#include "storage/journal.h"
#include "storage/kv_cache.h"
#include "storage/stage_store.h"
#include "storage/state_dir.h"
#include "storage/vocab_index.h"

namespace thimble {

class Engine final : public StatusSource {
 public:
  // Logs a line for each part. The error says which part failed and why.
  static Result<std::unique_ptr<Engine>> Open(const Config& config);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Lets go of everything that uses the state directory and marks its cache as clean. What refers
  // to the scheduler or the tokenizer must be gone. The destructor calls it.
  void Close();

  [[nodiscard]] Scheduler& scheduler() { return *scheduler_; }
  [[nodiscard]] Tokenizer& tokenizer() { return *tokenizer_; }
  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] uint32_t context_tokens() const { return context_tokens_; }
  [[nodiscard]] uint32_t max_active() const { return max_active_; }

  // A number that changes whenever a stage or a read of weights has been done.
  [[nodiscard]] uint64_t progress() const;

  // Gives RAM back that work has left behind and idling does not need: LMDB's pages, what of the
  // program's files nobody has mapped, free pages of the heap. Takes a millisecond.
  void Rest();
  // Gives resident weights up where the group gets close to its limit, and takes them back after
  // that; while there is nothing to do, all of the plan's spare. To be called in every turn of the
  // event loop; returns how long an idle one may take, the longest time there is where no group is
  // watched.
  std::chrono::milliseconds KeepRoom();

  [[nodiscard]] DaemonStatus Describe() const override;

 private:
  Engine() = default;
  Status OpenCeiling(const Config& config);
  Status OpenModel(const Config& config);
  Status OpenState(const Config& config);
  Status MakePlanFor(const Config& config);
  Status OpenRunner(const Config& config);
  Status OpenScheduler(const Config& config);
  Status CheckCacheSize(const Config& config) const;

  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  uint32_t context_tokens_ = 0;
  uint32_t max_active_ = 0;
  uint32_t max_queue_ = 0;
  // In the order of opening: destroyed from the last to the first.
  std::unique_ptr<Ceiling> ceiling_;
  std::optional<PressureGauge> pressure_;
  bool idle_ = true;  // when room was kept last
  std::unique_ptr<RandomAccessFile> file_;
  std::unique_ptr<Model> model_;
  StateDir state_;
  bool state_open_ = false;
  std::unique_ptr<VocabIndex> vocab_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<StageStore> store_;
  std::unique_ptr<Journal> journal_;
  Speeds speeds_;
  Plan plan_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace thimble
