// What KvCache keeps in RAM: which blocks have a place there, and how they come to LMDB.
#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <utility>

#include "storage/base/bytes.h"
#include "storage/encoding.h"
#include "storage/kv_cache.h"
#include "storage/kv_tail.h"

namespace thimble {
namespace {

// Written by one transaction, whose dirty pages are on the heap: several layers, at most; and one
// layer of several blocks.
constexpr uint64_t kStoreBytes = 128 * kKiB;
constexpr uint64_t kStoreTogetherBytes = 256 * kKiB;
// Written from RAM, these pages are read again past the page cache, which is relieved of them after
// so much. The first time they are dirty still, and begin to be written; the next time, at the
// latest in the next pass, they are clean.
constexpr uint64_t kReleaseBytes = 64 * kKiB;

}  // namespace

Status KvCache::UseRam(std::span<std::byte> memory) {
  if (ram_) {
    for (const KvPool::Slot& slot : ram_->slots()) {
      if (slot.holds == KvPool::Holds::kRows) THIMBLE_RETURN_IF_ERROR(RowsToTail(slot));
    }
  }
  ram_ = memory.empty() ? nullptr : std::make_unique<KvPool>(shape_, memory);
  return {};
}

Status KvCache::PlaceInRam(std::span<const KvPassRows> rows, const std::byte* from,
                           const std::byte* sure_from) {
  if (!ram_) return {};
  if (std::exchange(release_again_, false)) env_.ReleasePageCache(kept_bytes_);
  for (KvPool::Slot& slot : ram_->slots()) {
    if (slot.memory >= from || slot.holds == KvPool::Holds::kNothing) continue;
    if (slot.holds == KvPool::Holds::kRows) THIMBLE_RETURN_IF_ERROR(RowsToTail(slot));
    ram_->Free(slot);
  }
  ram_->BeginPass(from, sure_from);
  const auto blocks_of = [](const KvPassRows& r) { return r.sequence->n_tokens / kKvBlockTokens; };
  for (const KvPassRows& r : rows) {
    for (uint32_t block = 0; block < blocks_of(r); ++block) {
      if (KvPool::Slot* slot = InRam(*r.sequence, block)) slot->pass = ram_->pass();
    }
  }
  for (const KvPassRows& r : rows) {
    const uint32_t n_tokens = r.sequence->n_tokens;
    for (uint32_t block = blocks_of(r); block * kKvBlockTokens < n_tokens + r.n_rows; ++block) {
      if (InRam(*r.sequence, block) != nullptr) continue;
      if (ram_->ClaimForRows(r.sequence->id, block) == nullptr) break;
    }
  }
  for (const KvPassRows& r : rows) {
    for (uint32_t block = blocks_of(r); block-- > 0;) {
      if (InRam(*r.sequence, block) != nullptr) continue;
      if (ram_->ClaimForCopy(r.sequence->id, block) == nullptr) break;
    }
  }
  return {};
}

void KvCache::GiveWay(const std::byte* from,
                      const std::function<void(std::span<std::byte>)>& freed) {
  if (!ram_) return;
  const auto slot_bytes = static_cast<size_t>(KvPool::SlotBytes(shape_));
  for (KvPool::Slot& slot : ram_->slots()) {
    if (slot.memory >= from || slot.holds != KvPool::Holds::kCopy) continue;
    ram_->Free(slot);
    freed({slot.memory, slot_bytes});
  }
}

Status KvCache::BringRows(std::span<const KvPassRows> rows) {
  if (!ram_) return {};
  for (const KvPassRows& r : rows) {
    KvPool::Slot* slot = InRam(*r.sequence, r.sequence->n_tokens / kKvBlockTokens);
    const bool lacks_rows = slot != nullptr && slot->holds == KvPool::Holds::kRows &&
                            slot->n_rows != r.sequence->n_tokens % kKvBlockTokens;
    if (!lacks_rows) continue;
    Result<bool> all = RowsFromTail(*r.sequence, slot);
    if (!all.ok() || !*all) ram_->Free(*slot);
    THIMBLE_RETURN_IF_ERROR(all.status());
  }
  return {};
}

bool KvCache::HasBlocksOutsideRam(const KvSequence& sequence) const {
  for (uint32_t block = 0; block < sequence.blocks.size(); ++block) {
    const KvPool::Slot* slot = InRam(sequence, block);
    const bool all = slot != nullptr &&
                     (slot->holds == KvPool::Holds::kRows || slot->n_layers == shape_.n_layers);
    if (!all) return true;
  }
  return false;
}

bool KvCache::AppendsToDisk(const KvSequence& sequence, uint32_t n_rows) const {
  const uint32_t end = sequence.n_tokens + n_rows;
  for (uint32_t b = sequence.n_tokens / kKvBlockTokens; b * kKvBlockTokens < end; ++b) {
    if (InRam(sequence, b) == nullptr) return true;
  }
  return false;
}

// The rows of this pass that fall into the slot's block: [n_tokens][n_kv_heads][2] vectors to
// [n_kv_heads][2][kKvBlockTokens].
void KvCache::RowsToRam(const KvPool::Slot& slot, const KvSequence& sequence, uint32_t layer,
                        uint32_t n_tokens, const uint16_t* rows) const {
  const uint32_t block_begin = slot.block * kKvBlockTokens;
  const uint32_t begin = std::max(sequence.n_tokens, block_begin);
  const uint32_t end = std::min(sequence.n_tokens + n_tokens, block_begin + kKvBlockTokens);
  const size_t vector = shape_.VectorHalves();
  auto* to = reinterpret_cast<uint16_t*>(ram_->Layer(slot, layer));
  for (uint32_t position = begin; position < end; ++position) {
    const uint16_t* row = rows + (position - sequence.n_tokens) * shape_.RowHalves();
    for (size_t piece = 0; piece < size_t{2} * shape_.n_kv_heads; ++piece) {
      std::memcpy(to + (piece * kKvBlockTokens + position - block_begin) * vector,
                  row + piece * vector, vector * sizeof(uint16_t));
    }
  }
}

uint16_t* KvCache::RamRow(const KvSequence& sequence, uint32_t layer, uint32_t position) const {
  const KvPool::Slot* slot = InRam(sequence, position / kKvBlockTokens);
  assert(slot != nullptr);
  return reinterpret_cast<uint16_t*>(ram_->Layer(*slot, layer)) +
         position % kKvBlockTokens * shape_.VectorHalves();
}

void KvCache::KeepRows(const KvSequence& sequence, std::span<const uint8_t> rows) {
  const size_t vector = shape_.VectorHalves();
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == i) continue;
    for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
      const uint16_t* from = RamRow(sequence, layer, sequence.n_tokens + rows[i]);
      uint16_t* to = RamRow(sequence, layer, sequence.n_tokens + i);
      for (size_t piece = 0; piece < size_t{2} * shape_.n_kv_heads; ++piece) {
        const size_t at = piece * kKvBlockTokens * vector;
        std::memcpy(to + at, from + at, vector * sizeof(uint16_t));
      }
    }
  }
}

// The committed rows of a block that is not full, for which there is no RAM any more.
Status KvCache::RowsToTail(const KvPool::Slot& slot) {
  const size_t vector_bytes = shape_.VectorHalves() * sizeof(uint16_t);
  const size_t row_bytes = shape_.RowHalves() * sizeof(uint16_t);
  std::vector<std::byte> row(row_bytes);
  const auto layers_at_once = static_cast<uint32_t>(
      std::max<uint64_t>(1, kKvTransactionBytes / row_bytes / kKvBlockTokens));
  const auto put_layer = [&](LmdbTxn& txn, uint32_t layer) -> Status {
    const std::byte* from = ram_->Layer(slot, layer);
    for (uint32_t i = 0; i < slot.n_rows; ++i) {
      for (size_t piece = 0; piece < size_t{2} * shape_.n_kv_heads; ++piece) {
        std::memcpy(&row[piece * vector_bytes], from + (piece * kKvBlockTokens + i) * vector_bytes,
                    vector_bytes);
      }
      const Key key = KvTailKey(slot.sequence, layer, slot.block * kKvBlockTokens + i);
      THIMBLE_RETURN_IF_ERROR(txn.Put(tails_, key.bytes(), row));
    }
    return {};
  };
  for (uint32_t first = 0; first < shape_.n_layers && slot.n_rows > 0; first += layers_at_once) {
    const auto put = [&]() -> Status {
      THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
      for (uint32_t l = first; l < std::min(shape_.n_layers, first + layers_at_once); ++l) {
        Status status = put_layer(txn, l);
        if (!status.ok()) return status;
      }
      return txn.Commit();
    };
    THIMBLE_RETURN_IF_ERROR(WithRoom(put));
  }
  return {};
}

// The committed rows of a block that had no RAM before: attention would look up each of them, and
// wait for its page, in every pass until the block is full. They stay in the tails until then, too.
// False where one is missing: attention says which.
Result<bool> KvCache::RowsFromTail(const KvSequence& sequence, KvPool::Slot* slot) {
  const uint32_t begin = slot->block * kKvBlockTokens;
  const uint32_t n_rows = sequence.n_tokens - begin;
  const size_t vector_bytes = shape_.VectorHalves() * sizeof(uint16_t);
  const size_t row_bytes = shape_.RowHalves() * sizeof(uint16_t);
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
    std::byte* to = ram_->Layer(*slot, layer);
    uint32_t i = 0;
    const auto visit = [&](Bytes key, Bytes row) {
      const Key expected = KvTailKey(sequence.id, layer, begin + i);
      if (!std::ranges::equal(key, expected.bytes()) || row.size() != row_bytes) return false;
      for (size_t piece = 0; piece < size_t{2} * shape_.n_kv_heads; ++piece) {
        std::memcpy(to + (piece * kKvBlockTokens + i) * vector_bytes, &row[piece * vector_bytes],
                    vector_bytes);
      }
      return ++i < n_rows;
    };
    THIMBLE_RETURN_IF_ERROR(txn.Scan(tails_, KvTailKey(sequence.id, layer, begin).bytes(), visit));
    if (i != n_rows) return false;
  }
  slot->n_rows = n_rows;
  slot->in_tail = true;
  return true;
}

// Writes the blocks in RAM that `tokens` complete, but those that another sequence has recorded.
Status KvCache::StoreFromRam(const KvSequence& sequence, std::span<const int32_t> tokens) {
  const size_t end = (sequence.n_tokens + tokens.size()) / kKvBlockTokens;
  std::vector<CompleteInRam> blocks;
  KvBlockName parent = sequence.blocks.empty() ? index_->root() : sequence.blocks.back();
  for (auto b = static_cast<uint32_t>(sequence.blocks.size()); b < end; ++b) {
    const auto ids = KvBlockTokenIds(sequence, tokens, b);
    const KvBlockName name = index_->Name(parent, ids);
    if (const KvPool::Slot* slot = InRam(sequence, b)) blocks.push_back({slot, name, parent, ids});
    parent = name;
  }
  const uint64_t layer_bytes = shape_.BlockHalves() * sizeof(uint16_t);
  const auto most = static_cast<size_t>(std::max<uint64_t>(1, kStoreTogetherBytes / layer_bytes));
  for (size_t first = 0; first < blocks.size(); first += most) {
    const size_t n = std::min(most, blocks.size() - first);
    THIMBLE_RETURN_IF_ERROR(StoreBlocks(std::span(blocks).subspan(first, n)));
  }
  return {};
}

// Layer by layer: LMDB takes the first pages that are free, so that what attention reads of a layer
// mostly lies together, and comes from the device at once.
Status KvCache::StoreBlocks(std::span<const CompleteInRam> blocks) {
  const uint64_t layer_bytes = shape_.BlockHalves() * sizeof(uint16_t);
  const auto at_once =
      static_cast<uint32_t>(std::max<uint64_t>(1, kStoreBytes / (layer_bytes * blocks.size())));
  std::vector<bool> wanted(blocks.size());  // known with the first layers
  for (uint32_t first = 0; first < shape_.n_layers; first += at_once) {
    const uint32_t end = std::min(shape_.n_layers, first + at_once);
    const auto store = [&]() -> Status {
      THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
      for (size_t b = 0; first == 0 && b < blocks.size(); ++b) {
        THIMBLE_ASSIGN_OR_RETURN(wanted[b],
                                 MakeWay(txn, blocks[b].name, blocks[b].parent, blocks[b].tokens));
      }
      for (uint32_t layer = first; layer < end; ++layer) {
        for (size_t b = 0; b < blocks.size(); ++b) {
          if (!wanted[b]) continue;
          THIMBLE_ASSIGN_OR_RETURN(const std::span<std::byte> out,
                                   index_->PutLayer(txn, blocks[b].name, layer));
          std::memcpy(out.data(), ram_->Layer(*blocks[b].slot, layer), out.size());
        }
      }
      return txn.Commit();
    };
    THIMBLE_RETURN_IF_ERROR(WithRoom(store));
    ReleaseWritten(blocks.size() * (end - first) * layer_bytes);
  }
  return {};
}

void KvCache::ReleaseWritten(uint64_t bytes) {
  written_bytes_ += bytes;
  if (written_bytes_ < kReleaseBytes) return;
  written_bytes_ = 0;
  env_.ReleasePageCache(kept_bytes_);
  release_again_ = true;
}

}  // namespace thimble
