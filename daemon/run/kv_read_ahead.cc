#include "daemon/run/kv_read_ahead.h"

#include <algorithm>

#include "daemon/run/attention.h"

namespace thimble {

void KvReadAhead::BeginPass(uint64_t waits) {
  if (passes_ > 0) --passes_;
  if (waits >= waits_ + kWaits) passes_ = kPasses;
  waits_ = waits;
  next_ = {};
  ahead_ = 0;
}

bool KvReadAhead::Settle(std::span<const ActiveItem> items, uint32_t n_layers, Place* place) {
  while (place->layer < n_layers) {
    for (; place->item < items.size(); ++place->item, place->block = 0) {
      const ActiveItem& active = items[place->item];
      // Rows of the tail, and blocks of this pass, were written a moment ago.
      if (!active.dropped && place->block < active.item.sequence->blocks.size()) return true;
    }
    *place = {place->layer + 1, 0, 0};
  }
  return false;
}

void KvReadAhead::Advance(std::span<const ActiveItem> items, uint32_t layer, size_t item,
                          uint32_t block, KvCache& kv, KvCache::Reader& reader) {
  const Place here = {layer, item, block};
  if (KvStream* stream = kv.stream()) {
    next_ = std::max(next_, here);
    if (next_ != here && !stream->HalfFree()) return;
    // What was asked for is not wanted any more: an item was dropped.
    if (next_ == here) stream->Forget();
    stream->BeginBatch();
    while (stream->room() > 0 && Settle(items, kv.shape().n_layers, &next_)) {
      reader.ReadAhead(*items[next_.item].item.sequence, next_.layer, next_.block);
      ++next_.block;
    }
    stream->EndBatch();
    return;
  }
  if (passes_ == 0) return;
  if (next_ <= here) {
    next_ = here;
    ahead_ = 0;
  } else if (ahead_ > 0) {
    --ahead_;
  }
  const uint64_t block_bytes = kv.shape().BlockHalves() * sizeof(uint16_t);
  const auto most = static_cast<uint32_t>(std::max<uint64_t>(2, kAheadBytes / block_bytes));
  while (ahead_ < most && Settle(items, kv.shape().n_layers, &next_)) {
    reader.ReadAhead(*items[next_.item].item.sequence, next_.layer, next_.block);
    ++next_.block;
    ++ahead_;
  }
}

}  // namespace thimble
