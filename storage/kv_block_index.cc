#include "storage/kv_block_index.h"

#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "storage/base/bytes.h"
#include "storage/encoding.h"

namespace thimble {
namespace {

// Databases. Never change these names, keys or values:
//  "kv_blocks"   [name 16][layer u16 BE] -> BlockHalves() halves, [n_kv_heads][2][32][head_dim]
//  "kv_records"  [name 16]               -> BlockRecord; where it is, every layer is
//  "kv_used"     [used u64 BE][name 16]  -> nothing; in order of last use
//  "kv_meta"     "seed"                  -> u64, random, made once
// A name is XXH3-128, seeded by "seed", of [parent name 16][32 tokens i32 LE]; the root is that of
// [fingerprint 16][n_layers u32][n_kv_heads u32][head_dim u32][element type u32], little-endian.
constexpr std::string_view kSeed = "seed";
constexpr size_t kNameBytes = 16;

// Of LMDB's file: a node's key, its header, and its place in the page's list; what its pages begin
// with.
constexpr uint64_t kNodeBytes = kNameBytes + 2 + 8 + 2;
constexpr uint64_t kPageHeaderBytes = 16;

// LMDB's are the machine's, up to 32 KiB.
uint64_t PageBytes() {
  return std::min<uint64_t>(static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)), 32 * kKiB);
}

struct BlockRecord {
  KvBlockName parent;
  int32_t tokens[kKvBlockTokens];
  uint64_t used;        // the key in "kv_used"
  uint64_t file_bytes;  // that its layers take
};
static_assert(sizeof(BlockRecord) == 160, "on disk");

KvBlockName NameFrom(Bytes bytes) {
  KvBlockName name{};
  std::memcpy(name.data(), bytes.data(), std::min(bytes.size(), kNameBytes));
  return name;
}

Bytes NameBytes(const KvBlockName& name) { return std::as_bytes(std::span(name)); }

KvBlockName Hash(Bytes bytes, uint64_t seed) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  XXH128_canonical_t canonical{};
  XXH128_canonicalFromHash(&canonical, hash);
  KvBlockName name{};
  std::memcpy(name.data(), canonical.digest, sizeof canonical.digest);
  return name;
}

Result<std::optional<BlockRecord>> GetRecord(const LmdbTxn& txn, MDB_dbi db,
                                             const KvBlockName& name) {
  THIMBLE_ASSIGN_OR_RETURN(const auto value, txn.Get(db, NameBytes(name)));
  if (!value) return std::optional<BlockRecord>();
  if (value->size() != sizeof(BlockRecord)) {
    return DataLossError("KV block record of " + std::to_string(value->size()) + " bytes");
  }
  BlockRecord record{};
  std::memcpy(&record, value->data(), sizeof record);
  return std::optional<BlockRecord>(record);
}

// One more than the greatest use so far.
Result<uint64_t> NextUse(const LmdbTxn& txn, MDB_dbi used_db) {
  THIMBLE_ASSIGN_OR_RETURN(const auto last, txn.Before(used_db, Key().U64(UINT64_MAX).bytes()));
  return last && last->key.size() >= 8 ? KeyNumber(last->key, 0, 8) + 1 : 1;
}

Status PutRecord(LmdbTxn& txn, MDB_dbi records_db, MDB_dbi used_db, const KvBlockName& name,
                 const BlockRecord& record) {
  THIMBLE_RETURN_IF_ERROR(txn.Put(used_db, Key().U64(record.used).Raw(name).bytes(), {}));
  return txn.Put(records_db, NameBytes(name), std::as_bytes(std::span(&record, 1)));
}

}  // namespace

std::string_view KvTypeName(KvType type) { return type == KvType::kF16 ? "f16" : "q8_0"; }

Result<KvType> ParseKvType(std::string_view text) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    if (text == KvTypeName(type)) return type;
  }
  return InvalidArgumentError("KV type \"" + std::string(text) + "\": expected f16 or q8_0");
}

Result<std::unique_ptr<KvBlockIndex>> KvBlockIndex::Open(LmdbEnv& env, const Fingerprint& model,
                                                         const KvShape& shape) {
  std::unique_ptr<KvBlockIndex> index(new KvBlockIndex(env, shape));
  THIMBLE_ASSIGN_OR_RETURN(index->blocks_db_, env.OpenDatabase("kv_blocks"));
  THIMBLE_ASSIGN_OR_RETURN(index->records_db_, env.OpenDatabase("kv_records"));
  THIMBLE_ASSIGN_OR_RETURN(index->used_db_, env.OpenDatabase("kv_used"));
  THIMBLE_ASSIGN_OR_RETURN(index->meta_db_, env.OpenDatabase("kv_meta"));
  THIMBLE_RETURN_IF_ERROR(index->LoadSeed(model));
  THIMBLE_RETURN_IF_ERROR(index->RemoveOrphans());
  THIMBLE_RETURN_IF_ERROR(index->CountRecords());
  return index;
}

Status KvBlockIndex::LoadSeed(const Fingerprint& model) {
  THIMBLE_RETURN_IF_ERROR(env_.Remove([this](LmdbTxn& txn) -> Status {
    THIMBLE_ASSIGN_OR_RETURN(const auto value, txn.Get(meta_db_, AsBytes(kSeed)));
    if (value) {
      seed_ = ValueReader(*value).Le<uint64_t>();
      return {};
    }
    if (::getrandom(&seed_, sizeof seed_, 0) != sizeof seed_) {
      return ErrnoError(errno, "draw the KV cache's random seed");
    }
    return txn.Put(meta_db_, AsBytes(kSeed), std::as_bytes(std::span(&seed_, 1)));
  }));
  std::string root(reinterpret_cast<const char*>(model.data()), model.size());
  AppendLe(root, shape_.n_layers);
  AppendLe(root, shape_.n_kv_heads);
  AppendLe(root, shape_.head_dim);
  AppendLe(root, static_cast<uint32_t>(shape_.type));
  root_ = Hash(AsBytes(root), seed_);
  return {};
}

Status KvBlockIndex::RemoveOrphans() {
  // Names are visited by seeking past each one's layers; removed 16 at a time.
  std::optional<KvBlockName> next = KvBlockName{};
  while (next) {
    std::vector<KvBlockName> orphans;
    {
      THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
      while (next && orphans.size() < 16) {
        std::optional<KvBlockName> found;
        THIMBLE_RETURN_IF_ERROR(txn.Scan(blocks_db_, NameBytes(*next), [&](Bytes key, Bytes) {
          found = NameFrom(key);
          return false;
        }));
        next = found;
        if (!found) break;
        THIMBLE_ASSIGN_OR_RETURN(const auto record, txn.Get(records_db_, NameBytes(*found)));
        if (!record) orphans.push_back(*found);
        // The name after this one, as a big-endian number.
        size_t i = kNameBytes;
        while (i > 0 && ++(*next)[i - 1] == 0) --i;
        if (i == 0) next.reset();
      }
    }
    if (orphans.empty()) continue;
    const auto remove = [&](LmdbTxn& txn) -> Status {
      for (const KvBlockName& name : orphans) THIMBLE_RETURN_IF_ERROR(Remove(txn, name).status());
      return {};
    };
    THIMBLE_RETURN_IF_ERROR(env_.Remove(remove));
  }
  return {};
}

Status KvBlockIndex::CountRecords() {
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  return txn.Scan(records_db_, {}, [this](Bytes, Bytes value) {
    BlockRecord record{};
    std::memcpy(&record, value.data(), std::min(value.size(), sizeof record));
    Recorded(1);
    bytes_ += record.file_bytes - BlockFileBytes();  // another model's blocks are of other sizes
    return true;
  });
}

KvBlockName KvBlockIndex::Name(const KvBlockName& parent, KvBlockTokens tokens) const {
  std::array<std::byte, kNameBytes + kKvBlockTokens * sizeof(int32_t)> bytes{};
  std::memcpy(bytes.data(), parent.data(), kNameBytes);
  std::memcpy(&bytes[kNameBytes], tokens.data(), tokens.size_bytes());
  return Hash(bytes, seed_);
}

Result<KvBlockIndex::Match> KvBlockIndex::Find(const LmdbTxn& txn, const KvBlockName& name,
                                               const KvBlockName& parent,
                                               KvBlockTokens tokens) const {
  THIMBLE_ASSIGN_OR_RETURN(const auto record, GetRecord(txn, records_db_, name));
  if (!record) return Match::kNone;
  return record->parent == parent && std::ranges::equal(record->tokens, tokens) ? Match::kSame
                                                                                : Match::kOther;
}

Result<bool> KvBlockIndex::HasRecord(const LmdbTxn& txn, const KvBlockName& name) const {
  THIMBLE_ASSIGN_OR_RETURN(const auto value, txn.Get(records_db_, NameBytes(name)));
  return value.has_value();
}

Result<std::optional<Bytes>> KvBlockIndex::Layer(const LmdbTxn& txn, const KvBlockName& name,
                                                 uint32_t layer) const {
  const Key key = Key().Raw(name).U16(static_cast<uint16_t>(layer));
  THIMBLE_ASSIGN_OR_RETURN(const auto value, txn.Get(blocks_db_, key.bytes()));
  const size_t expected = shape_.BlockHalves() * sizeof(uint16_t);
  if (value && value->size() != expected) {
    return DataLossError("KV block of layer " + std::to_string(layer) + ": " +
                         std::to_string(value->size()) + " bytes, expected " +
                         std::to_string(expected));
  }
  return value;
}

Result<std::span<std::byte>> KvBlockIndex::PutLayer(LmdbTxn& txn, const KvBlockName& name,
                                                    uint32_t layer) {
  const Key key = Key().Raw(name).U16(static_cast<uint16_t>(layer));
  return txn.PutReserved(blocks_db_, key.bytes(), shape_.BlockHalves() * sizeof(uint16_t));
}

Status KvBlockIndex::Record(LmdbTxn& txn, const KvBlockName& name, const KvBlockName& parent,
                            KvBlockTokens tokens) {
  for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
    THIMBLE_ASSIGN_OR_RETURN(const auto value, Layer(txn, name, layer));
    if (!value) {
      return FailedPreconditionError("record a KV block: layer " + std::to_string(layer) +
                                     " has no rows");
    }
  }
  BlockRecord record{};
  record.parent = parent;
  std::ranges::copy(tokens, record.tokens);
  record.file_bytes = BlockFileBytes();
  THIMBLE_ASSIGN_OR_RETURN(record.used, NextUse(txn, used_db_));
  return PutRecord(txn, records_db_, used_db_, name, record);
}

void KvBlockIndex::Recorded(uint64_t n_blocks) {
  blocks_ += n_blocks;
  bytes_ += n_blocks * BlockFileBytes();
}

Status KvBlockIndex::Touch(LmdbTxn& txn, const KvBlockName& name) {
  THIMBLE_ASSIGN_OR_RETURN(auto record, GetRecord(txn, records_db_, name));
  if (!record) return {};
  THIMBLE_RETURN_IF_ERROR(txn.Delete(used_db_, Key().U64(record->used).Raw(name).bytes()).status());
  THIMBLE_ASSIGN_OR_RETURN(record->used, NextUse(txn, used_db_));
  return PutRecord(txn, records_db_, used_db_, name, *record);
}

Result<uint64_t> KvBlockIndex::Remove(LmdbTxn& txn, const KvBlockName& name) {
  THIMBLE_ASSIGN_OR_RETURN(const auto record, GetRecord(txn, records_db_, name));
  if (record) {
    THIMBLE_RETURN_IF_ERROR(
        txn.Delete(used_db_, Key().U64(record->used).Raw(name).bytes()).status());
    THIMBLE_RETURN_IF_ERROR(txn.Delete(records_db_, NameBytes(name)).status());
  }
  // Blocks of another model have another number of layers, and one cut short has gaps.
  while (true) {
    std::optional<uint16_t> layer;
    THIMBLE_RETURN_IF_ERROR(txn.Scan(blocks_db_, NameBytes(name), [&](Bytes key, Bytes) {
      if (key.size() == kNameBytes + 2 && NameFrom(key) == name) {
        layer = static_cast<uint16_t>(KeyNumber(key, kNameBytes, 2));
      }
      return false;
    }));
    if (!layer) break;
    THIMBLE_RETURN_IF_ERROR(txn.Delete(blocks_db_, Key().Raw(name).U16(*layer).bytes()).status());
  }
  return record ? record->file_bytes : 0;
}

void KvBlockIndex::Removed(uint64_t n_blocks, uint64_t bytes) {
  blocks_ -= std::min(blocks_, n_blocks);
  bytes_ -= std::min(bytes_, bytes);
}

Result<std::vector<KvBlockName>> KvBlockIndex::Oldest(
    const LmdbTxn& txn, size_t n, const std::function<bool(const KvBlockName&)>& in_use) const {
  std::vector<KvBlockName> names;
  THIMBLE_RETURN_IF_ERROR(txn.Scan(used_db_, {}, [&](Bytes key, Bytes) {
    const KvBlockName name = NameFrom(key.subspan(std::min<size_t>(8, key.size())));
    if (!in_use(name)) names.push_back(name);
    return names.size() < n;
  }));
  return names;
}

// Values of more than half a page are on pages of their own.
bool KvLayerHasOwnPages(const KvShape& shape) {
  return shape.BlockHalves() * sizeof(uint16_t) + kNodeBytes > PageBytes() / 2;
}

uint64_t KvLayerFileBytes(const KvShape& shape) {
  return AlignUp(shape.BlockHalves() * sizeof(uint16_t) + kPageHeaderBytes, PageBytes());
}

uint64_t KvBlockFileBytes(const KvShape& shape) {
  const uint64_t value = shape.BlockHalves() * sizeof(uint16_t);
  const uint64_t pages = KvLayerHasOwnPages(shape) ? KvLayerFileBytes(shape) + 8 : value;
  return shape.n_layers * (pages + kNodeBytes) + sizeof(BlockRecord);
}

}  // namespace thimble
