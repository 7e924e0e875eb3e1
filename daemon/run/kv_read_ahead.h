// Reading ahead of attention what has no place in the arena, in the order in which a pass goes
// through it: past the page cache where the cache has memory lent for it (KvCache::stream). Where
// it has none, keys and values lie in LMDB's map, page cache that the kernel takes back when the
// group is full. Attention that runs into pages which are gone waits for each 4 KiB
// of them: measured with 240 tokens of SmolLM2-135M at 64 MiB, 176 waits a token, half of its time.
// So, once such waits are seen, the kernel is asked for the blocks that attention is about to need,
// some ahead, in the order in which a pass goes through them. Where nothing waits nothing is asked.
// Called by: AttentionWalk. Memory: none; of page cache about kAheadBytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "daemon/run/runner.h"
#include "storage/kv_cache.h"

namespace thimble {

struct ActiveItem;

class KvReadAhead {
 public:
  static constexpr uint64_t kAheadBytes = uint64_t{256} << 10;
  // Waits of one pass for pages that make it worth while, and for how many passes then.
  static constexpr uint64_t kWaits = 4;
  static constexpr uint32_t kPasses = 256;

  // A pass begins at layer 0. `waits`: the thread's major faults so far.
  void BeginPass(uint64_t waits);
  // Attention is about to use `block` of items[item] at `layer`: asks for what comes behind it.
  void Advance(std::span<const ActiveItem> items, uint32_t layer, size_t item, uint32_t block,
               KvCache& kv, KvCache::Reader& reader);
  [[nodiscard]] bool active() const { return passes_ > 0; }

 private:
  // A block's place in a pass.
  struct Place {
    uint32_t layer = 0;
    size_t item = 0;
    uint32_t block = 0;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the comparison's 0 for a pointer
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  // The next place with a block of its own from `place` on; false behind the last layer's last.
  static bool Settle(std::span<const ActiveItem> items, uint32_t n_layers, Place* place);

  uint64_t waits_ = 0;
  uint32_t passes_ = 0;  // that read ahead still
  Place next_;           // to ask for
  uint32_t ahead_ = 0;   // blocks between attention and next_
};

}  // namespace thimble
