#include "storage/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "storage/base/bytes.h"
#include "storage/encoding.h"
#include "storage/kv_tail.h"

namespace thimble {
namespace {

// A block of one layer is written by one transaction, whose dirty pages are on the heap.
constexpr uint64_t kMaxBlockBytes = kMiB;

}  // namespace

Result<std::unique_ptr<KvCache>> KvCache::Open(LmdbEnv& cache, const Fingerprint& model,
                                               const KvShape& shape, uint64_t quota_bytes) {
  uint64_t block_bytes = 0;
  const bool fits = CheckedMul(uint64_t{shape.n_kv_heads} * shape.head_dim,
                               uint64_t{2} * kKvBlockTokens * sizeof(uint16_t), &block_bytes) &&
                    block_bytes > 0 && block_bytes <= kMaxBlockBytes;
  if (!fits || shape.n_layers == 0 || shape.n_layers > UINT16_MAX) {
    return InvalidArgumentError("open the KV cache for " + std::to_string(shape.n_layers) +
                                " layers of " + std::to_string(shape.n_kv_heads) + " heads of " +
                                std::to_string(shape.head_dim) +
                                ": a block of one layer must be 1 byte to 1 MiB");
  }
  if (shape.type == KvType::kQ8_0 && shape.head_dim % 32 != 0) {
    return InvalidArgumentError("open the KV cache as q8_0: heads of " +
                                std::to_string(shape.head_dim) +
                                " values, where a multiple of 32 is needed; f16 takes any");
  }
  std::unique_ptr<KvCache> kv(new KvCache(cache, shape, quota_bytes));
  THIMBLE_ASSIGN_OR_RETURN(kv->tails_, cache.OpenDatabase(kKvTailDatabase));
  const MDB_dbi tails = kv->tails_;
  THIMBLE_RETURN_IF_ERROR(cache.Remove([tails](LmdbTxn& txn) { return txn.Clear(tails); }));
  THIMBLE_ASSIGN_OR_RETURN(kv->index_, KvBlockIndex::Open(cache, model, shape));
  kv->pending_.reserve(64);
  return kv;
}

Result<KvSequence> KvCache::OpenSequence(std::span<const int32_t> prompt, uint32_t max_tokens) {
  if (prompt.size() > max_tokens) {
    return InvalidArgumentError("open a sequence: prompt of " + std::to_string(prompt.size()) +
                                " tokens, at most " + std::to_string(max_tokens));
  }
  KvSequence sequence;
  sequence.id = next_sequence_++;
  sequence.max_tokens = max_tokens;
  sequence.blocks.reserve(max_tokens / kKvBlockTokens + 1);
  sequence.tokens.reserve(max_tokens);
  sequence.offsets.reserve(size_t{max_tokens / kKvBlockTokens} * shape_.n_layers);
  {
    THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
    KvBlockName parent = index_->root();
    for (size_t begin = 0; begin + kKvBlockTokens < prompt.size(); begin += kKvBlockTokens) {
      const auto tokens = prompt.subspan(begin).first<kKvBlockTokens>();
      const KvBlockName name = index_->Name(parent, tokens);
      THIMBLE_ASSIGN_OR_RETURN(const auto match, index_->Find(txn, name, parent, tokens));
      if (match != KvBlockIndex::Match::kSame) break;
      sequence.blocks.push_back(name);
      parent = name;
    }
  }
  sequence.n_tokens = static_cast<uint32_t>(sequence.blocks.size()) * kKvBlockTokens;
  const auto taken = prompt.first(sequence.n_tokens);
  sequence.tokens.assign(taken.begin(), taken.end());
  for (const KvBlockName& name : sequence.blocks) ++users_[name];
  prefix_hit_tokens_ += sequence.n_tokens;
  return sequence;
}

Status KvCache::CloseSequence(KvSequence& sequence) {
  for (const KvBlockName& name : sequence.blocks) {
    const auto user = users_.find(name);
    if (user != users_.end() && --user->second == 0) users_.erase(user);
  }
  if (ram_) ram_->FreeSequence(sequence.id);
  Status status = DropPending(sequence.id);
  if (Status tail = RemoveTail(sequence.id, UINT32_MAX); status.ok()) status = std::move(tail);
  // Children before parents: a block without its parent cannot be found, so it must go first.
  const auto touch = [&](LmdbTxn& txn) -> Status {
    for (size_t i = sequence.blocks.size(); i-- > 0;) {
      THIMBLE_RETURN_IF_ERROR(index_->Touch(txn, sequence.blocks[i]));
    }
    return {};
  };
  if (!sequence.blocks.empty()) {
    if (Status touched = env_.Remove(touch); status.ok()) status = std::move(touched);
  }
  sequence = {};
  return status;
}

std::optional<uint64_t> KvCache::FileOffset(KvSequence& sequence, uint32_t layer, uint32_t block) {
  const KvPool::Slot* slot = InRam(sequence, block);
  if ((slot != nullptr && slot->Has(layer)) || !KvLayerHasOwnPages(shape_)) return std::nullopt;
  sequence.offsets.resize(sequence.blocks.size() * shape_.n_layers);
  uint64_t& offset = sequence.offsets[size_t{block} * shape_.n_layers + layer];
  if (offset == 0) {
    const Result<LmdbTxn> txn = env_.BeginRead();
    if (!txn.ok()) return std::nullopt;
    const auto whole = index_->Layer(*txn, sequence.blocks[block], layer);
    if (!whole.ok() || !*whole) return std::nullopt;
    offset = env_.FileOffset((*whole)->data()).value_or(0);
  }
  return offset == 0 ? std::nullopt : std::optional(offset);
}

Status KvCache::Check(const KvSequence& sequence, uint64_t n_new, const char* operation) const {
  const std::string what = std::string(operation) + " KV rows of sequence " +
                           std::to_string(sequence.id) + " at token " +
                           std::to_string(sequence.n_tokens);
  if (sequence.id == 0 || sequence.tokens.size() != sequence.n_tokens ||
      sequence.blocks.size() != sequence.n_tokens / kKvBlockTokens) {
    return InvalidArgumentError(what + ": not an open sequence");
  }
  if (sequence.n_tokens + n_new > sequence.max_tokens) {
    return OutOfRangeError(what + ": " + std::to_string(n_new) + " more than its " +
                           std::to_string(sequence.max_tokens) + " tokens");
  }
  return {};
}

KvBlockName KvCache::NameOf(const KvSequence& sequence, std::span<const int32_t> pending,
                            uint32_t block) const {
  if (block < sequence.blocks.size()) return sequence.blocks[block];
  KvBlockName name = sequence.blocks.empty() ? index_->root() : sequence.blocks.back();
  for (size_t b = sequence.blocks.size(); b <= block; ++b) {
    name = index_->Name(name, KvBlockTokenIds(sequence, pending, static_cast<uint32_t>(b)));
  }
  return name;
}

Status KvCache::AppendRows(const KvSequence& sequence, uint32_t layer,
                           std::span<const int32_t> tokens, const uint16_t* rows, LmdbTxn* batch) {
  THIMBLE_RETURN_IF_ERROR(Check(sequence, tokens.size(), "append"));
  if (layer >= shape_.n_layers) {
    return InvalidArgumentError("append KV rows of layer " + std::to_string(layer) +
                                ": the model has " + std::to_string(shape_.n_layers));
  }
  if (tokens.empty()) return {};
  const bool on_disk = AppendsToDisk(sequence, static_cast<uint32_t>(tokens.size()));
  if (on_disk) MarkPending(sequence, tokens);
  const uint32_t first = sequence.n_tokens / kKvBlockTokens;
  const uint32_t last =
      (sequence.n_tokens + static_cast<uint32_t>(tokens.size()) - 1) / kKvBlockTokens;
  for (uint32_t block = first; block <= last; ++block) {
    if (const KvPool::Slot* slot = InRam(sequence, block)) {
      RowsToRam(*slot, sequence, layer, static_cast<uint32_t>(tokens.size()), rows);
    }
  }
  if (batch != nullptr) {
    for (uint32_t block = first; block <= last; ++block) {
      THIMBLE_RETURN_IF_ERROR(AppendBlock(*batch, sequence, layer, tokens, rows, block));
    }
    return {};
  }
  if (!on_disk) return {};
  const uint64_t block_bytes = shape_.BlockHalves() * sizeof(uint16_t);
  const auto blocks_at_once =
      static_cast<uint32_t>(std::max<uint64_t>(1, kKvTransactionBytes / block_bytes));
  for (uint32_t begin = first; begin <= last; begin += blocks_at_once) {
    THIMBLE_RETURN_IF_ERROR(WithRoom([&]() -> Status {
      THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
      for (uint32_t block = begin; block <= last && block < begin + blocks_at_once; ++block) {
        Status status = AppendBlock(txn, sequence, layer, tokens, rows, block);
        if (!status.ok()) return status;
      }
      return txn.Commit();
    }));
  }
  return {};
}

Status KvCache::AppendBlock(LmdbTxn& txn, const KvSequence& sequence, uint32_t layer,
                            std::span<const int32_t> tokens, const uint16_t* rows, uint32_t block) {
  if (InRam(sequence, block) != nullptr) return {};
  const uint64_t block_end = uint64_t{block + 1} * kKvBlockTokens;
  const uint64_t end = sequence.n_tokens + tokens.size();
  if (block_end <= end) return CompleteBlock(txn, sequence, layer, block, tokens, rows);
  const Bytes bytes = std::as_bytes(std::span(rows, tokens.size() * shape_.RowHalves()));
  const size_t row_bytes = shape_.RowHalves() * sizeof(uint16_t);
  for (uint64_t position = std::max<uint64_t>(sequence.n_tokens, block_end - kKvBlockTokens);
       position < end; ++position) {
    const Key key = KvTailKey(sequence.id, layer, static_cast<uint32_t>(position));
    const Bytes row = bytes.subspan((position - sequence.n_tokens) * row_bytes, row_bytes);
    THIMBLE_RETURN_IF_ERROR(txn.Put(tails_, key.bytes(), row));
  }
  return {};
}

// Whether the block is to be written: false where the very same one is there. One of other tokens
// under the same name goes, unless it is in use.
Result<bool> KvCache::MakeWay(LmdbTxn& txn, const KvBlockName& name, const KvBlockName& parent,
                              KvBlockTokens tokens) {
  THIMBLE_ASSIGN_OR_RETURN(const auto match, index_->Find(txn, name, parent, tokens));
  if (match == KvBlockIndex::Match::kSame) return false;
  if (match == KvBlockIndex::Match::kNone) return true;
  if (users_.contains(name)) {
    return InternalError(
        "append KV rows: a block of other tokens has the same name, and is in use");
  }
  THIMBLE_ASSIGN_OR_RETURN(const uint64_t bytes, index_->Remove(txn, name));
  index_->Removed(1, bytes);
  return true;
}

// Puts a block together from rows in the tail and new rows, unless the very same one is there.
Status KvCache::CompleteBlock(LmdbTxn& txn, const KvSequence& sequence, uint32_t layer,
                              uint32_t block, std::span<const int32_t> tokens,
                              const uint16_t* rows) {
  const KvBlockName parent = block == 0 ? index_->root() : NameOf(sequence, tokens, block - 1);
  const auto ids = KvBlockTokenIds(sequence, tokens, block);
  const KvBlockName name = index_->Name(parent, ids);
  THIMBLE_ASSIGN_OR_RETURN(const bool wanted, MakeWay(txn, name, parent, ids));
  if (!wanted) return {};
  THIMBLE_ASSIGN_OR_RETURN(const std::span<std::byte> out, index_->PutLayer(txn, name, layer));
  const size_t head_bytes = shape_.VectorHalves() * sizeof(uint16_t);
  const size_t row_bytes = shape_.RowHalves() * sizeof(uint16_t);
  const Bytes fresh = std::as_bytes(std::span(rows, tokens.size() * shape_.RowHalves()));
  for (uint32_t i = 0; i < kKvBlockTokens; ++i) {
    const uint32_t position = block * kKvBlockTokens + i;
    Bytes row;
    if (position >= sequence.n_tokens) {
      row = fresh.subspan((position - sequence.n_tokens) * row_bytes, row_bytes);
    } else {
      const Key key = KvTailKey(sequence.id, layer, position);
      THIMBLE_ASSIGN_OR_RETURN(const auto kept, txn.Get(tails_, key.bytes()));
      if (!kept || kept->size() != row_bytes) return KvRowMissing(sequence.id, layer, position);
      row = *kept;
    }
    // [n_kv_heads][2] vectors, each 32 times apart in the block.
    for (size_t piece = 0; piece < size_t{2} * shape_.n_kv_heads; ++piece) {
      std::memcpy(&out[(piece * kKvBlockTokens + i) * head_bytes], &row[piece * head_bytes],
                  head_bytes);
    }
  }
  return {};
}

}  // namespace thimble
