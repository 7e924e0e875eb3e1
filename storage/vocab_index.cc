// The vocabulary index's four databases and how they are filled. docs/storage.md, "Vocabulary
// index", describes the same bytes in prose.
//
// Every key begins with the model's number, big-endian, handed out in rising order: a new model's
// entries come behind all others, so that each database is built by appending (MDB_APPEND), which
// leaves full pages and needs no search. Integers in keys are big-endian (LMDB compares bytes), in
// values little-endian. Memory: see Build.
#include "storage/vocab_index.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace thimble {
namespace {

// On disk: never change these values; a new layout takes a new version.
constexpr uint32_t kFormatVersion = 1;
constexpr char kModelsDb[] = "vocab_models";  // fingerprint -> ModelRecord
constexpr char kTokensDb[] = "vocab_tokens";  // number, id -> kind(1) score(4) text
constexpr char kTextsDb[] = "vocab_texts";    // number, XXH3-64 of text -> ids(4 each), rising
constexpr char kMergesDb[] = "vocab_merges";  // number, left, right -> rank(4) result(4)
constexpr size_t kTokenHeader = 5;            // kind and score
constexpr size_t kModelRecordBytes = 17;      // version(4) number(4) built(1) tokens(4) merges(4)

constexpr uint8_t kControlKind = 3;

// A transaction is committed when it has written this much. LMDB keeps the heap of a commit's dirty
// pages for the next one as long as the environment is open: 1 MiB here left 1.1 MB behind for
// good.
constexpr size_t kBatchBytes = 256 * 1024;

void StoreBig32(uint32_t value, uint8_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}
void StoreLittle32(uint32_t value, uint8_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
}
uint32_t LoadLittle32(const std::byte* in) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= std::to_integer<uint32_t>(in[i]) << (8 * i);
  return value;
}

template <size_t N>
Bytes ToBytes(const std::array<uint8_t, N>& array) {
  return std::as_bytes(std::span(array));
}

std::array<uint8_t, 8> Key(uint32_t number, uint32_t id) {
  std::array<uint8_t, 8> key{};
  StoreBig32(number, key.data());
  StoreBig32(id, key.data() + 4);
  return key;
}

std::array<uint8_t, 12> Key(uint32_t number, uint32_t high, uint32_t low) {
  std::array<uint8_t, 12> key{};
  StoreBig32(number, key.data());
  StoreBig32(high, key.data() + 4);
  StoreBig32(low, key.data() + 8);
  return key;
}

std::array<uint8_t, 12> HashKey(uint32_t number, uint64_t hash) {
  return Key(number, static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(hash));
}

uint64_t HashText(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

struct ModelRecord {
  uint32_t version = kFormatVersion;
  uint32_t number = 0;
  bool built = false;
  uint32_t tokens = 0;
  uint32_t merges = 0;

  [[nodiscard]] std::array<uint8_t, kModelRecordBytes> Encode() const {
    std::array<uint8_t, kModelRecordBytes> bytes{};
    StoreLittle32(version, bytes.data());
    StoreLittle32(number, bytes.data() + 4);
    bytes[8] = built ? 1 : 0;
    StoreLittle32(tokens, bytes.data() + 9);
    StoreLittle32(merges, bytes.data() + 13);
    return bytes;
  }
  // A record of another layout counts as not built; its number is where every version keeps it.
  static ModelRecord Decode(Bytes bytes) {
    ModelRecord record;
    if (bytes.size() >= 8) {
      record.version = LoadLittle32(bytes.data());
      record.number = LoadLittle32(bytes.data() + 4);
    }
    if (bytes.size() == kModelRecordBytes && record.version == kFormatVersion) {
      record.built = bytes[8] == std::byte{1};
      record.tokens = LoadLittle32(bytes.data() + 9);
      record.merges = LoadLittle32(bytes.data() + 13);
    }
    return record;
  }
};

// Appends entries, committing whenever kBatchBytes have been written.
class BatchWriter {
 public:
  BatchWriter(LmdbEnv& env, MDB_dbi db) : env_(env), db_(db) {}

  Status Append(Bytes key, Bytes value) {
    if (!txn_.open()) {
      THIMBLE_ASSIGN_OR_RETURN(txn_, env_.BeginWrite());
    }
    THIMBLE_RETURN_IF_ERROR(txn_.Put(db_, key, value, MDB_APPEND));
    // A node's header and index are 10 bytes; a long value takes whole pages of its own.
    written_ += key.size() + value.size() + (value.size() > 1024 ? 2 * 4096 : 10);
    return written_ >= kBatchBytes ? Commit() : Status();
  }
  Status Commit() {
    written_ = 0;
    return txn_.open() ? txn_.Commit() : Status();
  }

 private:
  LmdbEnv& env_;
  MDB_dbi db_;
  LmdbTxn txn_;
  size_t written_ = 0;
};

}  // namespace

Result<std::unique_ptr<VocabIndex>> VocabIndex::Open(LmdbEnv& cache, const Fingerprint& model) {
  std::unique_ptr<VocabIndex> index(new VocabIndex(cache, model));
  THIMBLE_ASSIGN_OR_RETURN(index->models_, cache.OpenDatabase(kModelsDb));
  THIMBLE_ASSIGN_OR_RETURN(index->tokens_, cache.OpenDatabase(kTokensDb));
  THIMBLE_ASSIGN_OR_RETURN(index->texts_, cache.OpenDatabase(kTextsDb));
  THIMBLE_ASSIGN_OR_RETURN(index->merges_, cache.OpenDatabase(kMergesDb));
  THIMBLE_ASSIGN_OR_RETURN([[maybe_unused]] const bool built, index->IsBuilt());
  return index;
}

Result<bool> VocabIndex::IsBuilt() {
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  THIMBLE_ASSIGN_OR_RETURN(const std::optional<Bytes> value, txn.Get(models_, ToBytes(model_)));
  const ModelRecord record = value ? ModelRecord::Decode(*value) : ModelRecord();
  number_ = record.built ? record.number : 0;
  return record.built;
}

Status VocabIndex::Build(const TokenSource& for_each_token, const MergeSource& for_each_merge) {
  number_ = 0;
  THIMBLE_RETURN_IF_ERROR(RemoveUnfinished());
  THIMBLE_ASSIGN_OR_RETURN(const uint32_t number, BeginModel());

  ModelRecord record;
  record.number = number;
  {
    std::vector<TextHash> texts;
    THIMBLE_RETURN_IF_ERROR(WriteTokens(for_each_token, number, &texts));
    record.tokens = static_cast<uint32_t>(texts.size());
    std::sort(texts.begin(), texts.end(), [](const TextHash& a, const TextHash& b) {
      return a.hash != b.hash ? a.hash < b.hash : a.id < b.id;
    });
    THIMBLE_RETURN_IF_ERROR(WriteTexts(texts, number));
    THIMBLE_ASSIGN_OR_RETURN(const std::vector<MergeEntry> merges,
                             ResolveMerges(for_each_merge, number, texts));
    THIMBLE_RETURN_IF_ERROR(WriteMerges(merges, number));
    record.merges = static_cast<uint32_t>(merges.size());
  }
  record.built = true;
  THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
  THIMBLE_RETURN_IF_ERROR(txn.Put(models_, ToBytes(model_), ToBytes(record.Encode())));
  THIMBLE_RETURN_IF_ERROR(txn.Commit());
  number_ = number;
  return {};
}

// Removes every model that has no complete index: this process is the only one with the environment
// open, so nobody is still building it. This model's own record goes too, complete or not.
Status VocabIndex::RemoveUnfinished() {
  struct Leftover {
    Fingerprint model;
    uint32_t number;
  };
  std::vector<Leftover> leftovers;
  {
    THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
    THIMBLE_RETURN_IF_ERROR(txn.Scan(models_, {}, [&](Bytes key, Bytes value) {
      Leftover leftover{};
      if (key.size() != leftover.model.size()) return true;
      std::memcpy(leftover.model.data(), key.data(), key.size());
      const ModelRecord record = ModelRecord::Decode(value);
      leftover.number = record.number;
      if (!record.built || leftover.model == model_) leftovers.push_back(leftover);
      return true;
    }));
  }
  for (const Leftover& leftover : leftovers) {
    for (const MDB_dbi db : {merges_, texts_, tokens_}) {
      THIMBLE_RETURN_IF_ERROR(RemoveModel(db, leftover.number));
    }
    // Last, so that a kill in between leaves the record to be found again.
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
    THIMBLE_ASSIGN_OR_RETURN([[maybe_unused]] const bool removed,
                             txn.Delete(models_, ToBytes(leftover.model)));
    THIMBLE_RETURN_IF_ERROR(txn.Commit());
  }
  return {};
}

// Deletes all entries of `number` from `db`, at most 4,096 (under 1 MiB of pages for the usual
// token) a transaction.
Status VocabIndex::RemoveModel(MDB_dbi db, uint32_t number) {
  constexpr size_t kKeysPerBatch = 4096;
  std::array<uint8_t, 4> prefix{};
  StoreBig32(number, prefix.data());
  std::vector<std::array<uint8_t, 12>> keys;
  size_t key_bytes = 0;  // the same for all keys of one database
  do {
    keys.clear();
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
    THIMBLE_RETURN_IF_ERROR(txn.Scan(db, ToBytes(prefix), [&](Bytes key, Bytes) {
      std::array<uint8_t, 12> copy{};
      if (key.size() < 4 || key.size() > copy.size() ||
          std::memcmp(key.data(), prefix.data(), prefix.size()) != 0) {
        return false;
      }
      std::memcpy(copy.data(), key.data(), key.size());
      key_bytes = key.size();
      keys.push_back(copy);
      return keys.size() < kKeysPerBatch;
    }));
    for (const auto& key : keys) {
      THIMBLE_ASSIGN_OR_RETURN([[maybe_unused]] const bool removed,
                               txn.Delete(db, ToBytes(key).first(key_bytes)));
    }
    THIMBLE_RETURN_IF_ERROR(txn.Commit());
  } while (keys.size() == kKeysPerBatch);
  return {};
}

// Gives this model a number above all others, marked as not built.
Result<uint32_t> VocabIndex::BeginModel() {
  THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
  ModelRecord record;
  THIMBLE_RETURN_IF_ERROR(txn.Scan(models_, {}, [&](Bytes, Bytes value) {
    record.number = std::max(record.number, ModelRecord::Decode(value).number);
    return true;
  }));
  ++record.number;
  THIMBLE_RETURN_IF_ERROR(txn.Put(models_, ToBytes(model_), ToBytes(record.Encode())));
  THIMBLE_RETURN_IF_ERROR(txn.Commit());
  return record.number;
}

Status VocabIndex::WriteTokens(const TokenSource& for_each_token, uint32_t number,
                               std::vector<TextHash>* texts) const {
  BatchWriter writer(env_, tokens_);
  std::string value;
  const auto add = [&](const VocabToken& token) -> Status {
    const auto id = static_cast<uint32_t>(texts->size());
    texts->push_back({HashText(token.text), id});
    std::array<uint8_t, kTokenHeader> header{token.kind};
    StoreLittle32(std::bit_cast<uint32_t>(token.score), header.data() + 1);
    value.assign(AsText(ToBytes(header)));
    value += token.text;
    return writer.Append(ToBytes(Key(number, id)), AsBytes(value));
  };
  THIMBLE_RETURN_IF_ERROR(for_each_token(add));
  return writer.Commit();
}

Status VocabIndex::WriteTexts(const std::vector<TextHash>& texts, uint32_t number) const {
  BatchWriter writer(env_, texts_);
  std::vector<uint8_t> ids;
  for (size_t begin = 0; begin < texts.size();) {
    size_t end = begin;
    ids.clear();
    for (; end < texts.size() && texts[end].hash == texts[begin].hash; ++end) {
      ids.resize(ids.size() + 4);
      StoreLittle32(texts[end].id, &ids[ids.size() - 4]);
    }
    THIMBLE_RETURN_IF_ERROR(
        writer.Append(ToBytes(HashKey(number, texts[begin].hash)), std::as_bytes(std::span(ids))));
    begin = end;
  }
  return writer.Commit();
}

// Looks `text` up in the sorted list, which is in RAM while building, and verifies it in the
// database. Without it, *id stays as it is.
Status VocabIndex::FindText(const LmdbTxn& txn, uint32_t number, const std::vector<TextHash>& texts,
                            std::string_view text, uint32_t* id, uint8_t* kind) const {
  const uint64_t hash = HashText(text);
  auto it = std::lower_bound(texts.begin(), texts.end(), hash,
                             [](const TextHash& entry, uint64_t h) { return entry.hash < h; });
  for (; it != texts.end() && it->hash == hash; ++it) {
    THIMBLE_ASSIGN_OR_RETURN(const std::optional<Bytes> value,
                             txn.Get(tokens_, ToBytes(Key(number, it->id))));
    if (value && value->size() >= kTokenHeader && AsText(value->subspan(kTokenHeader)) == text) {
      *id = it->id;
      *kind = std::to_integer<uint8_t>((*value)[0]);
      return {};
    }
  }
  return {};
}

Result<std::vector<VocabIndex::MergeEntry>> VocabIndex::ResolveMerges(
    const MergeSource& for_each_merge, uint32_t number, const std::vector<TextHash>& texts) {
  constexpr uint32_t kNone = UINT32_MAX;
  std::vector<MergeEntry> merges;
  uint32_t rank = 0;
  std::string joined;
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  const auto add = [&](std::string_view merge) -> Status {
    const uint32_t this_rank = rank++;
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos) return {};
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    joined.assign(left).append(right);
    MergeEntry entry{kNone, kNone, this_rank, kNone};
    uint8_t kind = 0;
    THIMBLE_RETURN_IF_ERROR(FindText(txn, number, texts, left, &entry.left, &kind));
    THIMBLE_RETURN_IF_ERROR(FindText(txn, number, texts, right, &entry.right, &kind));
    THIMBLE_RETURN_IF_ERROR(FindText(txn, number, texts, joined, &entry.result, &kind));
    const bool known = entry.left != kNone && entry.right != kNone && entry.result != kNone;
    if (known && kind != kControlKind) merges.push_back(entry);
    return {};
  };
  THIMBLE_RETURN_IF_ERROR(for_each_merge(add));
  std::sort(merges.begin(), merges.end(), [](const MergeEntry& a, const MergeEntry& b) {
    if (a.left != b.left) return a.left < b.left;
    return a.right != b.right ? a.right < b.right : a.rank < b.rank;
  });
  const auto same_pair = [](const MergeEntry& a, const MergeEntry& b) {
    return a.left == b.left && a.right == b.right;
  };
  merges.erase(std::unique(merges.begin(), merges.end(), same_pair), merges.end());
  return merges;
}

Status VocabIndex::WriteMerges(const std::vector<MergeEntry>& merges, uint32_t number) const {
  BatchWriter writer(env_, merges_);
  for (const MergeEntry& merge : merges) {
    std::array<uint8_t, 8> value{};
    StoreLittle32(merge.rank, value.data());
    StoreLittle32(merge.result, value.data() + 4);
    THIMBLE_RETURN_IF_ERROR(
        writer.Append(ToBytes(Key(number, merge.left, merge.right)), ToBytes(value)));
  }
  return writer.Commit();
}

VocabIndex::Reader::Reader(VocabIndex& index) : index_(index) {
  if (index.number_ == 0) {
    status_ = FailedPreconditionError("read the vocabulary index in " + index.env_.path() +
                                      ": it is not built for this model");
    return;
  }
  Result<LmdbTxn> txn = index.env_.BeginRead();
  if (txn.ok()) {
    txn_ = std::move(txn).value();
  } else {
    status_ = txn.status();
  }
}

Result<VocabToken> VocabIndex::Reader::Token(uint32_t id) {
  THIMBLE_RETURN_IF_ERROR(status_);
  THIMBLE_ASSIGN_OR_RETURN(const std::optional<Bytes> value,
                           txn_.Get(index_.tokens_, ToBytes(Key(index_.number_, id))));
  if (!value) return OutOfRangeError("token " + std::to_string(id) + " is not in the vocabulary");
  if (value->size() < kTokenHeader) {
    return DataLossError("token " + std::to_string(id) + " in the vocabulary index has " +
                         std::to_string(value->size()) + " bytes");
  }
  VocabToken token;
  token.kind = std::to_integer<uint8_t>((*value)[0]);
  token.score = std::bit_cast<float>(LoadLittle32(value->data() + 1));
  token.text = AsText(value->subspan(kTokenHeader));
  return token;
}

Result<std::optional<uint32_t>> VocabIndex::Reader::Find(std::string_view text) {
  THIMBLE_RETURN_IF_ERROR(status_);
  THIMBLE_ASSIGN_OR_RETURN(
      const std::optional<Bytes> ids,
      txn_.Get(index_.texts_, ToBytes(HashKey(index_.number_, HashText(text)))));
  for (size_t at = 0; ids && at + 4 <= ids->size(); at += 4) {
    const uint32_t id = LoadLittle32(ids->data() + at);
    THIMBLE_ASSIGN_OR_RETURN(const VocabToken token, Token(id));
    if (token.text == text) return std::optional<uint32_t>(id);
  }
  return std::optional<uint32_t>();
}

Result<std::optional<VocabMerge>> VocabIndex::Reader::Merge(uint32_t left, uint32_t right) {
  THIMBLE_RETURN_IF_ERROR(status_);
  THIMBLE_ASSIGN_OR_RETURN(const std::optional<Bytes> value,
                           txn_.Get(index_.merges_, ToBytes(Key(index_.number_, left, right))));
  if (!value || value->size() != 8) return std::optional<VocabMerge>();
  return std::optional<VocabMerge>(
      VocabMerge{LoadLittle32(value->data()), LoadLittle32(value->data() + 4)});
}

}  // namespace thimble
