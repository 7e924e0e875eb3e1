// Outputs of stages between groups, in LMDB's `cache` environment: what lets a pass give back the
// RAM of one group before the next one begins. A value is overwritten by the next pass.
// docs/storage.md has the byte formats. Called by: the runner, the sampler (logits of wide
// sampling). Memory: one chunk (64 KiB) of dirty pages during a write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "storage/base/status.h"
#include "storage/lmdb.h"

namespace thimble {

class StageStore {
 public:
  // Creates the database where it is missing; outputs of an earlier process are removed.
  static Result<std::unique_ptr<StageStore>> Open(LmdbEnv& cache);

  // Writes `bytes` as value `value` part `part`, from the part's byte `offset` (a multiple of
  // kChunkBytes). A full disk or map is RESOURCE_EXHAUSTED.
  Status Write(uint32_t value, uint32_t part, std::span<const std::byte> bytes,
               uint64_t offset = 0);
  // Fills `out` from `offset` (a multiple of kChunkBytes); NOT_FOUND where nothing was written,
  // DATA_LOSS where less was.
  Status Read(uint32_t value, uint32_t part, std::span<std::byte> out, uint64_t offset = 0);

  // Written since Open.
  [[nodiscard]] uint64_t bytes_written() const { return bytes_written_; }

  // Values are cut into chunks of this size. On disk: never change this value.
  static constexpr size_t kChunkBytes = 64 * 1024;

 private:
  explicit StageStore(LmdbEnv& env) : env_(env) {}
  LmdbEnv& env_;
  MDB_dbi db_ = 0;
  uint64_t bytes_written_ = 0;
};

}  // namespace thimble
