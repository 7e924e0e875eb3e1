// The vocabulary index: a model's tokens and merges in LMDB (the `cache` environment), so that a
// tokenizer needs no vocabulary in RAM. Built once per model, named by its fingerprint.
// docs/storage.md has the byte formats. Called by: the tokenizers.
//
// Every look-up opens and closes a read transaction of its own unless a Reader is held; a Reader
// must not live across a return to the event loop.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/status.h"
#include "storage/lmdb.h"

namespace thimble {

using Fingerprint = std::array<uint8_t, 16>;

struct VocabToken {
  std::string_view text;  // as in the file; valid while the Reader lives and nothing is written
  float score = 0;
  uint8_t kind = 1;  // tokenizer.ggml.token_type: 1 normal, 2 unknown, 3 control, 4 user, 6 byte
};

struct VocabMerge {
  uint32_t rank = 0;    // lower merges first
  uint32_t result = 0;  // the id of the joined token
};

class VocabIndex {
 public:
  // Creates the databases in `cache` where they are missing (four of its named databases, plus
  // their handles). `cache` must outlive the index.
  static Result<std::unique_ptr<VocabIndex>> Open(LmdbEnv& cache, const Fingerprint& model);

  // True where Build has completed for this model.
  [[nodiscard]] Result<bool> IsBuilt();

  // `for_each_token` and `for_each_merge` call their argument once an entry, in order of id or
  // rank; a merge gives the two pieces as one string, "left right", split at the first space behind
  // its first byte. Merges whose pieces or result are not tokens, or whose result is a control
  // token, are skipped; of equal texts the lowest id is found, of equal merges the first counts.
  // Commits in batches (at most 512 KiB of dirty pages) and marks the index as built at the end;
  // what an interrupted build left is removed by the next one. Memory while it runs: 16 bytes a
  // token and 16 bytes a merge. Errors: those of the sources; RESOURCE_EXHAUSTED where the map or
  // the disk is full.
  using TokenSource = std::function<Status(const std::function<Status(const VocabToken&)>&)>;
  using MergeSource = std::function<Status(const std::function<Status(std::string_view)>&)>;
  Status Build(const TokenSource& for_each_token, const MergeSource& for_each_merge);

  // Holds one read transaction. Of an index that is not built, every look-up is
  // FAILED_PRECONDITION.
  class Reader {
   public:
    explicit Reader(VocabIndex& index);
    [[nodiscard]] Status status() const { return status_; }  // of opening the transaction
    [[nodiscard]] Result<VocabToken> Token(uint32_t id);     // OUT_OF_RANGE
    [[nodiscard]] Result<std::optional<uint32_t>> Find(std::string_view text);
    [[nodiscard]] Result<std::optional<VocabMerge>> Merge(uint32_t left, uint32_t right);

   private:
    VocabIndex& index_;
    LmdbTxn txn_;
    Status status_;
  };

 private:
  struct TextHash {  // one token's text; sorted by hash, then id
    uint64_t hash;
    uint32_t id;
  };
  struct MergeEntry {
    uint32_t left, right, rank, result;
  };

  VocabIndex(LmdbEnv& env, const Fingerprint& model) : env_(env), model_(model) {}

  Status RemoveUnfinished();
  Result<uint32_t> BeginModel();
  Status RemoveModel(MDB_dbi db, uint32_t number);
  Status WriteTokens(const TokenSource& for_each_token, uint32_t number,
                     std::vector<TextHash>* texts) const;
  Status WriteTexts(const std::vector<TextHash>& texts, uint32_t number) const;
  Result<std::vector<MergeEntry>> ResolveMerges(const MergeSource& for_each_merge, uint32_t number,
                                                const std::vector<TextHash>& texts);
  Status WriteMerges(const std::vector<MergeEntry>& merges, uint32_t number) const;
  [[nodiscard]] Status FindText(const LmdbTxn& txn, uint32_t number,
                                const std::vector<TextHash>& texts, std::string_view text,
                                uint32_t* id, uint8_t* kind) const;

  LmdbEnv& env_;
  const Fingerprint model_;
  MDB_dbi models_ = 0;
  MDB_dbi tokens_ = 0;
  MDB_dbi texts_ = 0;
  MDB_dbi merges_ = 0;
  uint32_t number_ = 0;  // of this model in the databases; 0: not built
};

}  // namespace thimble
