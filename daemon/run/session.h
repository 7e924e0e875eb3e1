// Everything inference needs for one model, opened in order over a given state: what `thimble
// logits` runs on, and what tests of the runner run on. The daemon's engine adds the ceiling, the
// tokenizer, the journal and the queue.
// Memory: the arena (plan.peak_bytes) and what the parts say of themselves.
#pragma once

#include <memory>
#include <string>

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "daemon/run/runner.h"
#include "storage/base/file.h"
#include "storage/kv_cache.h"
#include "storage/lmdb.h"
#include "storage/stage_store.h"
#include "storage/weight_reader.h"

namespace thimble {

struct SessionOptions {
  PlanOptions plan;
  ReaderBackend reader = ReaderBackend::kAuto;
  KvType kv_type = KvType::kF16;
  uint64_t kv_quota_bytes = uint64_t{1} << 30;
  uint32_t kv_ram_tokens = 0;  // keys and values in RAM, as far as the plan's budget goes
};

struct Session {
  std::unique_ptr<RandomAccessFile> file;
  std::unique_ptr<Model> model;
  std::unique_ptr<Plan> plan;
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<StageStore> store;
  std::unique_ptr<Runner> runner;

  Session() = default;
  ~Session() = default;
  Session(Session&&) = default;
  // The parts that give way go in the order of the destructor: the runner first.
  Session& operator=(Session&& other) noexcept {
    runner = nullptr;
    store = std::move(other.store);
    kv = std::move(other.kv);
    plan = std::move(other.plan);
    model = std::move(other.model);
    file = std::move(other.file);
    runner = std::move(other.runner);
    return *this;
  }

  // `cache` must outlive the session.
  static Result<Session> Open(std::unique_ptr<RandomAccessFile> file, LmdbEnv& cache,
                              const SessionOptions& options);
};

}  // namespace thimble
