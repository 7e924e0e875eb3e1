// What the commands that need no daemon share: a place for their LMDB files, the plan's options.
#pragma once

#include <memory>
#include <string>

#include "daemon/plan/plan.h"
#include "storage/base/status.h"
#include "storage/lmdb.h"

namespace thimble {

// The options of a plan for a daemon with this ceiling ("16M"; empty: none). INVALID_ARGUMENT where
// one of the texts makes no sense.
Result<PlanOptions> OfflinePlanOptions(const std::string& ram_ceiling,
                                       const std::string& granularity, uint32_t max_rows,
                                       uint32_t max_logit_rows);

// A cache environment in a new directory under $TMPDIR (/tmp), removed with its object.
class ScratchCache {
 public:
  static Result<std::unique_ptr<ScratchCache>> Make();
  ~ScratchCache();
  ScratchCache(const ScratchCache&) = delete;
  ScratchCache& operator=(const ScratchCache&) = delete;
  [[nodiscard]] LmdbEnv& env() { return *env_; }

 private:
  explicit ScratchCache(std::string path) : path_(std::move(path)) {}
  const std::string path_;
  std::unique_ptr<LmdbEnv> env_;
};

}  // namespace thimble
