// The attention stage: for every row, a running softmax over the KV cache's blocks, in order, one
// block in RAM at a time. It can stop after any head of any block and go on later, which bounds how
// long a step takes. Called by: the runner. Memory: one KV block and 8 bytes per row and head, in
// the stage's work buffer.
#pragma once

#include <cstdint>
#include <span>

#include "daemon/run/kv_reads.h"
#include "daemon/run/stage_math.h"
#include "storage/base/status.h"
#include "storage/kv_cache.h"

namespace thimble {

class AttentionWalk {
 public:
  // Zeroes the accumulators. The buffers must stay in place until Step has said true.
  void Begin(const StageBuffers& b);

  // Does about `work_limit` multiply-adds more, in one read transaction; true when the stage is
  // done. Full blocks that are not in RAM come from `source`, or the map.
  Result<bool> Step(const StageBuffers& b, std::span<const ActiveItem> items, KvCache& kv,
                    KvSource& source, uint64_t work_limit);

 private:
  // The query heads of one KV head on one block, whose tokens from first_token on are at `kv`.
  struct HeadBlock {
    uint32_t head_begin = 0;
    uint32_t head_end = 0;
    uint32_t first_token = 0;
    KvHeadBlock kv;
  };
  Status Heads(const StageBuffers& b, const ActiveItem& active, KvCache::Reader& reader,
               uint64_t* work);
  // Rows that follow one another.
  void Rows(const StageBuffers& b, const ActiveItem& active, const HeadBlock& block,
            uint64_t* work) const;
  // Rows of a tree, on a block that has, or would have, tokens behind the text.
  void TreeRows(const StageBuffers& b, const ActiveItem& active, const KvCache::Reader& reader,
                const HeadBlock& block, uint64_t* work) const;
  void Finish(const StageBuffers& b);

  size_t item_ = 0;
  uint32_t block_ = 0;
  uint32_t head_ = 0;
};

}  // namespace thimble
