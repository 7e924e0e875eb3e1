// Which full KV blocks there are, what tokens each stands for, and which was used longest ago.
//
// A block's name is a hash of its parent's name and its own 32 tokens; the first block's parent is
// the root, a hash of the model's fingerprint, the shape and the element type. The hash is seeded
// by a random number of this cache, so that nobody can prepare prompts that collide, and it is
// never trusted alone: a block's record keeps parent and tokens, which are compared at every use.
// docs/storage.md has the byte formats. Called by: KvCache. Memory: a few hundred bytes.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "storage/base/status.h"
#include "storage/lmdb.h"
#include "storage/vocab_index.h"

namespace thimble {

// On disk: never change this value.
inline constexpr uint32_t kKvBlockTokens = 32;

// How keys and values are kept. On disk, GGUF's numbers: never change these values.
enum class KvType : uint32_t {
  kF16 = 1,
  kQ8_0 = 8,  // 32 values share a scale: 34 bytes; head_dim is a multiple of 32
};
std::string_view KvTypeName(KvType type);  // "f16", "q8_0"
Result<KvType> ParseKvType(std::string_view text);

struct KvShape {
  uint32_t n_layers = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  KvType type = KvType::kF16;

  // One head's key, or value, of one token, in units of two bytes.
  [[nodiscard]] size_t VectorHalves() const {
    return type == KvType::kQ8_0 ? size_t{head_dim} / 32 * 17 : size_t{head_dim};
  }
  [[nodiscard]] size_t RowHalves() const { return size_t{2} * n_kv_heads * VectorHalves(); }
  [[nodiscard]] size_t BlockHalves() const { return RowHalves() * kKvBlockTokens; }
};

// Bytes of LMDB's file that one block of this shape takes, page rounding included.
uint64_t KvBlockFileBytes(const KvShape& shape);

// Whether a layer of a block has pages of its own. LMDB neither moves nor frees these while the
// block is in use; smaller values move with their neighbours.
bool KvLayerHasOwnPages(const KvShape& shape);

// Of LMDB's file what one layer of a block with pages of its own takes; neighbours lie so far
// apart.
uint64_t KvLayerFileBytes(const KvShape& shape);

using KvBlockName = std::array<uint8_t, 16>;
using KvBlockTokens = std::span<const int32_t, kKvBlockTokens>;

struct KvBlockNameHash {
  size_t operator()(const KvBlockName& name) const {
    size_t hash = 0;  // a name is a hash already
    std::memcpy(&hash, name.data(), sizeof hash);
    return hash;
  }
};

class KvBlockIndex {
 public:
  // Creates the databases where missing, removes blocks that have no record (a pass that was under
  // way when the process ended), and counts what is there.
  static Result<std::unique_ptr<KvBlockIndex>> Open(LmdbEnv& env, const Fingerprint& model,
                                                    const KvShape& shape);

  [[nodiscard]] const KvBlockName& root() const { return root_; }
  [[nodiscard]] KvBlockName Name(const KvBlockName& parent, KvBlockTokens tokens) const;

  // What is recorded under a name: nothing, this very block, or another one of the same hash.
  enum class Match : uint8_t { kNone, kSame, kOther };
  [[nodiscard]] Result<Match> Find(const LmdbTxn& txn, const KvBlockName& name,
                                   const KvBlockName& parent, KvBlockTokens tokens) const;

  [[nodiscard]] Result<bool> HasRecord(const LmdbTxn& txn, const KvBlockName& name) const;

  // The halves of one layer, or nullopt. Valid as LmdbTxn::Get says.
  [[nodiscard]] Result<std::optional<Bytes>> Layer(const LmdbTxn& txn, const KvBlockName& name,
                                                   uint32_t layer) const;
  // Room for the halves of one layer, to be filled before the next update of `txn`.
  Result<std::span<std::byte>> PutLayer(LmdbTxn& txn, const KvBlockName& name, uint32_t layer);

  // Records a block as complete and the most recently used. FAILED_PRECONDITION where a layer is
  // missing. Counted in blocks() and bytes() when the caller calls Recorded() after its commit.
  Status Record(LmdbTxn& txn, const KvBlockName& name, const KvBlockName& parent,
                KvBlockTokens tokens);
  void Recorded(uint64_t n_blocks);

  // Makes the block the most recently used.
  Status Touch(LmdbTxn& txn, const KvBlockName& name);

  // Removes the record and every layer. Uncounted when the caller calls Removed() after its commit
  // with the bytes returned; 0 where there was no record.
  Result<uint64_t> Remove(LmdbTxn& txn, const KvBlockName& name);
  void Removed(uint64_t n_blocks, uint64_t bytes);

  // Up to `n` recorded blocks, the least recently used first, that `in_use` denies.
  [[nodiscard]] Result<std::vector<KvBlockName>> Oldest(
      const LmdbTxn& txn, size_t n, const std::function<bool(const KvBlockName&)>& in_use) const;

  [[nodiscard]] uint64_t BlockFileBytes() const { return KvBlockFileBytes(shape_); }
  [[nodiscard]] uint64_t blocks() const { return blocks_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  KvBlockIndex(LmdbEnv& env, const KvShape& shape) : env_(env), shape_(shape) {}
  Status LoadSeed(const Fingerprint& model);
  Status RemoveOrphans();
  Status CountRecords();

  LmdbEnv& env_;
  const KvShape shape_;
  KvBlockName root_{};
  uint64_t seed_ = 0;
  MDB_dbi blocks_db_ = 0;
  MDB_dbi records_db_ = 0;
  MDB_dbi used_db_ = 0;
  MDB_dbi meta_db_ = 0;
  uint64_t blocks_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace thimble
