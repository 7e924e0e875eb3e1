// How large the cache's file must be allowed to grow, so that no accepted request dies of a full
// map: known at start, from the model's shape and the most requests that are computed at a time.
// Called by: the engine. Memory: none.
#pragma once

#include <cstdint>

#include "storage/kv_block_index.h"

namespace thimble {

// Of the file, what full KV blocks may take: the rest is for the tails, the stage outputs, the
// vocabulary index, and LMDB's own free pages.
constexpr uint64_t KvQuota(uint64_t cache_bytes) { return cache_bytes / 4 * 3; }

struct CacheNeed {
  KvShape shape;
  uint32_t sequences = 1;       // open at a time
  uint32_t context_tokens = 0;  // of each
  uint32_t vocab_size = 0;
  uint64_t stage_output_bytes = 0;  // of one pass
};

// The smallest size that does, a multiple of 1 MiB.
uint64_t CacheBytesNeeded(const CacheNeed& need);

}  // namespace thimble
