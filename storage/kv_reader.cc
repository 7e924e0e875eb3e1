// KvCache::Reader: what attention reads. One look-up per block and layer; successive heads of the
// same block are served from it.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "storage/kv_cache.h"
#include "storage/kv_tail.h"

namespace thimble {

Result<KvCache::Reader> KvCache::Reader::Begin(KvCache& cache, KvSource* source) {
  THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, cache.env_.BeginRead());
  return Reader(cache, source, std::move(txn));
}

Status KvCache::Reader::Head(const KvSequence& sequence, std::span<const int32_t> pending,
                             uint32_t layer, uint32_t block, uint32_t n_total, uint32_t kv_head,
                             uint16_t* scratch, KvHeadBlock* out) {
  const KvShape& shape = cache_->shape_;
  const uint64_t begin = uint64_t{block} * kKvBlockTokens;
  if (layer >= shape.n_layers || kv_head >= shape.n_kv_heads || begin >= n_total ||
      n_total > sequence.n_tokens + pending.size()) {
    return InvalidArgumentError("read KV head " + std::to_string(kv_head) + " of layer " +
                                std::to_string(layer) + ", block " + std::to_string(block) +
                                " of " + std::to_string(n_total) + " tokens: there is none");
  }
  if (sequence.id != sequence_ || layer != layer_ || block != block_ || n_total != n_total_) {
    layer_ = UINT32_MAX;
    THIMBLE_RETURN_IF_ERROR(Find(sequence, pending, layer, block, n_total));
    sequence_ = sequence.id;
    layer_ = layer;
    block_ = block;
    n_total_ = n_total;
  }
  const size_t vector = shape.VectorHalves();
  const size_t head_halves = 2 * vector;
  if (whole_ != nullptr) {
    // LMDB places values at even addresses.
    const auto* head =
        reinterpret_cast<const uint16_t*>(whole_) + kv_head * head_halves * kKvBlockTokens;
    *out = {head, head + kKvBlockTokens * vector};
    return {};
  }
  uint16_t* keys = scratch;
  uint16_t* values = scratch + kKvBlockTokens * vector;
  const size_t n = std::min<uint64_t>(kKvBlockTokens, n_total - begin);
  for (size_t i = 0; i < n; ++i) {
    const std::byte* head = rows_[i] + kv_head * head_halves * sizeof(uint16_t);
    std::memcpy(keys + i * vector, head, vector * sizeof(uint16_t));
    std::memcpy(values + i * vector, head + vector * sizeof(uint16_t), vector * sizeof(uint16_t));
  }
  *out = {keys, values};
  return {};
}

KvHeadBlock KvCache::Reader::Row(const KvSequence& sequence, uint32_t layer, uint32_t i,
                                 uint32_t kv_head) const {
  const size_t vector = cache_->shape_.VectorHalves();
  const uint16_t* key = cache_->RamRow(sequence, layer, sequence.n_tokens + i) +
                        size_t{2} * kv_head * kKvBlockTokens * vector;
  return {key, key + kKvBlockTokens * vector};
}

Status KvCache::Reader::Find(const KvSequence& sequence, std::span<const int32_t> pending,
                             uint32_t layer, uint32_t block, uint32_t n_total) {
  const uint64_t begin = uint64_t{block} * kKvBlockTokens;
  KvPool::Slot* slot = cache_->InRam(sequence, block);
  if (slot != nullptr && slot->Has(layer)) {
    whole_ = cache_->ram_->Layer(*slot, layer);
    return {};
  }
  whole_ = nullptr;
  if (source_ != nullptr && block < sequence.blocks.size()) {
    THIMBLE_ASSIGN_OR_RETURN(whole_, source_->Take({sequence.id, layer, block}));
  }
  if (whole_ == nullptr && (begin + kKvBlockTokens <= n_total || block < sequence.blocks.size())) {
    const KvBlockName name = cache_->NameOf(sequence, pending, block);
    THIMBLE_ASSIGN_OR_RETURN(const auto whole, cache_->index_->Layer(txn_, name, layer));
    if (!whole) return KvRowMissing(sequence.id, layer, begin);
    whole_ = whole->data();
  }
  if (whole_ != nullptr) {
    if (slot != nullptr && layer == slot->n_layers) {
      std::byte* copy = cache_->ram_->Layer(*slot, layer);
      std::memcpy(copy, whole_, cache_->shape_.BlockHalves() * sizeof(uint16_t));
      whole_ = copy;
      ++slot->n_layers;
    }
    return {};
  }
  const size_t row_bytes = cache_->shape_.RowHalves() * sizeof(uint16_t);
  uint64_t position = begin;
  const auto visit = [&](Bytes key, Bytes row) {
    const Key expected = KvTailKey(sequence.id, layer, static_cast<uint32_t>(position));
    if (!std::ranges::equal(key, expected.bytes()) || row.size() != row_bytes) return false;
    rows_[position - begin] = row.data();
    return ++position < n_total;
  };
  const Key first = KvTailKey(sequence.id, layer, static_cast<uint32_t>(begin));
  THIMBLE_RETURN_IF_ERROR(txn_.Scan(cache_->tails_, first.bytes(), visit));
  return position == n_total ? Status() : KvRowMissing(sequence.id, layer, position);
}

}  // namespace thimble
