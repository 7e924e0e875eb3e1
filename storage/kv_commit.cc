// The end of a pass for KvCache: completed blocks get their record, the quota is kept, what is no
// longer needed goes.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "storage/base/bytes.h"
#include "storage/encoding.h"
#include "storage/kv_cache.h"
#include "storage/kv_tail.h"

namespace thimble {
namespace {

// Blocks given up at once where the map is full or the quota reached.
constexpr uint32_t kEvictAtOnce = 4;
// Of the disk, left to others: with less than this free the cache does not grow.
constexpr uint64_t kFreeDiskBytes = 16 * kMiB;
// Tries of one write on a full map, with blocks evicted in between: free pages may lie apart where
// a run of them is needed.
constexpr int kMaxAttempts = 5;

}  // namespace

Status KvCache::PrepareRows(const KvSequence& sequence, std::span<const int32_t> tokens) {
  THIMBLE_RETURN_IF_ERROR(Check(sequence, tokens.size(), "commit"));
  const auto n_tokens = static_cast<uint32_t>(sequence.n_tokens + tokens.size());
  THIMBLE_RETURN_IF_ERROR(ReturnToTail(sequence, n_tokens));
  if (n_tokens / kKvBlockTokens == sequence.blocks.size()) return {};
  MarkPending(sequence, tokens);
  THIMBLE_RETURN_IF_ERROR(StoreFromRam(sequence, tokens));
  return RecordBlocks(sequence, tokens);
}

// What cannot be removed from the disk here is removed by Close or by the next Open.
void KvCache::CommitRows(KvSequence& sequence, std::span<const int32_t> tokens) {
  const auto n_tokens = static_cast<uint32_t>(sequence.n_tokens + tokens.size());
  const uint32_t n_blocks = n_tokens / kKvBlockTokens;
  const size_t old_blocks = sequence.blocks.size();
  const KvSequence& before = sequence;
  bool on_disk = false;  // rows of these blocks may be in the tails
  for (size_t block = old_blocks; block < n_blocks; ++block) {
    const auto ids = KvBlockTokenIds(before, tokens, static_cast<uint32_t>(block));
    const KvBlockName& parent = block == 0 ? index_->root() : sequence.blocks[block - 1];
    const KvBlockName name = index_->Name(parent, ids);
    ++users_[name];
    sequence.blocks.push_back(name);
    if (KvPool::Slot* slot = InRam(sequence, static_cast<uint32_t>(block))) {
      on_disk |= std::exchange(slot->in_tail, false);
      slot->holds = KvPool::Holds::kCopy;
      slot->n_layers = shape_.n_layers;
    } else {
      on_disk = true;
    }
  }
  sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
  sequence.n_tokens = n_tokens;
  (void)DropPending(sequence.id);
  if (KvPool::Slot* slot = InRam(sequence, n_blocks)) slot->n_rows = n_tokens % kKvBlockTokens;
  if (on_disk) (void)RemoveTail(sequence.id, n_blocks * kKvBlockTokens);
}

// Records the blocks that `tokens` complete, but those that another sequence has recorded.
Status KvCache::RecordBlocks(const KvSequence& sequence, std::span<const int32_t> tokens) {
  struct Block {
    KvBlockName name;
    KvBlockName parent;
    std::array<int32_t, kKvBlockTokens> tokens;
  };
  std::vector<Block> fresh;
  {
    THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
    const size_t end = (sequence.n_tokens + tokens.size()) / kKvBlockTokens;
    KvBlockName parent = sequence.blocks.empty() ? index_->root() : sequence.blocks.back();
    for (size_t b = sequence.blocks.size(); b < end; ++b) {
      const auto ids = KvBlockTokenIds(sequence, tokens, static_cast<uint32_t>(b));
      const KvBlockName name = index_->Name(parent, ids);
      THIMBLE_ASSIGN_OR_RETURN(const auto match, index_->Find(txn, name, parent, ids));
      if (match != KvBlockIndex::Match::kSame) fresh.push_back({name, parent, ids});
      parent = name;
    }
  }
  if (fresh.empty()) return {};
  THIMBLE_RETURN_IF_ERROR(MakeRoomInQuota(fresh.size() * index_->BlockFileBytes()));
  const auto record = [&]() -> Status {
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
    for (const Block& block : fresh) {
      Status status = index_->Record(txn, block.name, block.parent, block.tokens);
      if (!status.ok()) return status;
    }
    return txn.Commit();
  };
  THIMBLE_RETURN_IF_ERROR(WithRoom(record));
  index_->Recorded(fresh.size());
  return {};
}

// Where the disk is nearly full, blocks go before others come, so that the file need not grow; a
// cache whose blocks are all in use grows all the same, until a write fails.
void KvCache::MakeRoomOnDisk(uint64_t wanted) {
  if (env_.FreeDiskBytes() >= kFreeDiskBytes) return;
  const uint64_t n = (wanted - 1) / index_->BlockFileBytes() + 1;
  (void)Evict(static_cast<uint32_t>(std::min<uint64_t>(n, kEvictAtOnce)));
}

Status KvCache::MakeRoomInQuota(uint64_t wanted) {
  MakeRoomOnDisk(wanted);
  while (index_->bytes() + wanted > quota_bytes_) {
    const uint64_t excess = index_->bytes() + wanted - quota_bytes_;
    const uint64_t n = (excess - 1) / index_->BlockFileBytes() + 1;
    THIMBLE_ASSIGN_OR_RETURN(const uint32_t evicted,
                             Evict(static_cast<uint32_t>(std::min<uint64_t>(n, kEvictAtOnce))));
    if (evicted > 0) continue;
    return ResourceExhaustedError("keep " + FormatBytes(wanted) + " more of keys and values: " +
                                  FormatBytes(index_->bytes()) + " of the quota's " +
                                  FormatBytes(quota_bytes_) + " are in use by open sequences");
  }
  return {};
}

// Where the tokens end inside a block that AppendRows had completed, with draft tokens that are not
// committed, the rows of that block go to the tail after all.
Status KvCache::ReturnToTail(const KvSequence& sequence, uint32_t n_tokens) {
  const uint32_t block = n_tokens / kKvBlockTokens;
  if (InRam(sequence, block) != nullptr) return {};
  const uint32_t begin = std::max(sequence.n_tokens, block * kKvBlockTokens);
  const auto found = std::ranges::find_if(pending_, [&](const Pending& p) {
    return p.sequence == sequence.id && p.block == block && !p.stale;
  });
  if (found == pending_.end() || begin >= n_tokens) return {};
  const KvBlockName name = found->name;
  const size_t piece_bytes = shape_.VectorHalves() * sizeof(uint16_t);
  const size_t row_bytes = shape_.RowHalves() * sizeof(uint16_t);
  const auto layers_at_once = static_cast<uint32_t>(
      std::max<uint64_t>(1, kKvTransactionBytes / row_bytes / kKvBlockTokens));
  const auto copy_layer = [&](LmdbTxn& txn, uint32_t layer) -> Status {
    for (uint32_t position = begin; position < n_tokens; ++position) {
      THIMBLE_ASSIGN_OR_RETURN(const auto whole, index_->Layer(txn, name, layer));
      if (!whole) return KvRowMissing(sequence.id, layer, position);
      std::vector<std::byte> row(row_bytes);  // not into LMDB's own memory: a Put may move `whole`
      for (size_t piece = 0; piece < size_t{2} * shape_.n_kv_heads; ++piece) {
        const size_t at = (piece * kKvBlockTokens + position % kKvBlockTokens) * piece_bytes;
        std::memcpy(&row[piece * piece_bytes], &(*whole)[at], piece_bytes);
      }
      const Key key = KvTailKey(sequence.id, layer, position);
      Status status = txn.Put(tails_, key.bytes(), row);
      if (!status.ok()) return status;
    }
    return {};
  };
  for (uint32_t first = 0; first < shape_.n_layers; first += layers_at_once) {
    const auto copy = [&]() -> Status {
      THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
      for (uint32_t l = first; l < std::min(shape_.n_layers, first + layers_at_once); ++l) {
        Status status = copy_layer(txn, l);
        if (!status.ok()) return status;
      }
      return txn.Commit();
    };
    THIMBLE_RETURN_IF_ERROR(WithRoom(copy));
  }
  return {};
}

// Removes a sequence's tail rows of positions below `n_tokens`.
Status KvCache::RemoveTail(uint64_t sequence, uint32_t n_tokens) {
  const uint64_t row_bytes = shape_.RowHalves() * sizeof(uint16_t);
  const auto layers_at_once = static_cast<uint32_t>(
      std::max<uint64_t>(1, kKvTransactionBytes / row_bytes / kKvBlockTokens));
  const auto remove_layer = [&](LmdbTxn& txn, uint32_t layer) -> Status {
    for (bool more = true; more;) {
      uint32_t position = 0;
      more = false;
      const auto visit = [&](Bytes key, Bytes) {
        if (key.size() == kKvTailKeyBytes && KeyNumber(key, 0, 8) == sequence &&
            KeyNumber(key, 8, 2) == layer && KeyNumber(key, 10, 4) < n_tokens) {
          position = static_cast<uint32_t>(KeyNumber(key, 10, 4));
          more = true;
        }
        return false;
      };
      Status status = txn.Scan(tails_, KvTailKey(sequence, layer, 0).bytes(), visit);
      if (!status.ok() || !more) return status;
      status = txn.Delete(tails_, KvTailKey(sequence, layer, position).bytes()).status();
      if (!status.ok()) return status;
    }
    return {};
  };
  for (uint32_t first = 0; first < shape_.n_layers; first += layers_at_once) {
    const auto remove = [&](LmdbTxn& txn) -> Status {
      for (uint32_t l = first; l < std::min(shape_.n_layers, first + layers_at_once); ++l) {
        Status status = remove_layer(txn, l);
        if (!status.ok()) return status;
      }
      return {};
    };
    THIMBLE_RETURN_IF_ERROR(env_.Remove(remove));
  }
  return {};
}

// Notes which blocks the rows of `tokens` complete; what earlier rows of this pass completed is
// stale.
void KvCache::MarkPending(const KvSequence& sequence, std::span<const int32_t> tokens) {
  for (Pending& p : pending_) p.stale |= p.sequence == sequence.id;
  const size_t end = (sequence.n_tokens + tokens.size()) / kKvBlockTokens;
  KvBlockName name = sequence.blocks.empty() ? index_->root() : sequence.blocks.back();
  for (auto b = static_cast<uint32_t>(sequence.blocks.size()); b < end; ++b) {
    name = index_->Name(name, KvBlockTokenIds(sequence, tokens, b));
    const auto known = std::ranges::find_if(
        pending_, [&](const Pending& p) { return p.sequence == sequence.id && p.name == name; });
    if (known == pending_.end()) {
      pending_.push_back({name, sequence.id, b, false});
    } else {
      known->stale = false;
    }
  }
}

// Forgets a sequence's pending blocks, and removes those that nobody has recorded or is writing.
Status KvCache::DropPending(uint64_t sequence) {
  std::vector<KvBlockName> names;
  for (const Pending& p : pending_) {
    if (p.sequence == sequence) names.push_back(p.name);
  }
  if (names.empty()) return {};
  std::erase_if(pending_, [&](const Pending& p) { return p.sequence == sequence; });
  std::erase_if(names, [&](const KvBlockName& name) { return InUse(name); });
  if (names.empty()) return {};
  return env_.Remove([&](LmdbTxn& txn) -> Status {
    for (const KvBlockName& name : names) {
      THIMBLE_ASSIGN_OR_RETURN(const bool recorded, index_->HasRecord(txn, name));
      if (recorded) continue;
      THIMBLE_RETURN_IF_ERROR(index_->Remove(txn, name).status());
    }
    return {};
  });
}

bool KvCache::InUse(const KvBlockName& name) const {
  return users_.contains(name) ||
         std::ranges::any_of(pending_, [&](const Pending& p) { return p.name == name; });
}

// Runs `write`, and again with some blocks fewer while the map or the disk is full.
Status KvCache::WithRoom(const std::function<Status()>& write) {
  Status status = write();
  for (int attempt = 1; attempt < kMaxAttempts; ++attempt) {
    if (status.code() != StatusCode::kResourceExhausted) break;
    const Result<uint32_t> evicted = Evict(kEvictAtOnce);
    if (!evicted.ok() || *evicted == 0) break;
    status = write();
  }
  return status;
}

// Removes up to `n_blocks` blocks that no open sequence uses; returns how many.
Result<uint32_t> KvCache::Evict(uint32_t n_blocks) {
  std::vector<KvBlockName> names;
  {
    THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
    const auto in_use = [this](const KvBlockName& name) { return InUse(name); };
    THIMBLE_ASSIGN_OR_RETURN(names, index_->Oldest(txn, n_blocks, in_use));
  }
  if (names.empty()) return 0U;
  uint64_t bytes = 0;
  const auto remove = [&](LmdbTxn& txn) -> Status {
    bytes = 0;
    for (const KvBlockName& name : names) {
      THIMBLE_ASSIGN_OR_RETURN(const uint64_t freed, index_->Remove(txn, name));
      bytes += freed;
    }
    return {};
  };
  THIMBLE_RETURN_IF_ERROR(env_.Remove(remove));
  index_->Removed(names.size(), bytes);
  evicted_blocks_ += names.size();
  return static_cast<uint32_t>(names.size());
}

}  // namespace thimble
