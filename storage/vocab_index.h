// The vocabulary index: a model's tokens and merges in LMDB (the `cache` environment), so that a
// tokenizer needs no vocabulary in RAM. Built once per model, named by its fingerprint.
// docs/storage.md has the byte formats. Called by: the tokenizers.
//
// Every look-up opens and closes a read transaction of its own unless a Reader is held; a Reader must
// not live across a return to the event loop.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

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
  // Creates the databases in `cache` where they are missing. `cache` must outlive the index.
  static Result<std::unique_ptr<VocabIndex>> Open(LmdbEnv& cache, const Fingerprint& model);

  // True where Build has completed for this model.
  [[nodiscard]] Result<bool> IsBuilt();

  // `for_each_token` and `for_each_merge` call their argument once an entry, in order of id or rank;
  // a merge gives the two pieces as one string, "left right". Merges whose pieces or result are not
  // tokens are skipped. Commits in batches (at most 2 MiB of dirty pages) and marks the index as built at the end; an interrupted
  // build starts again. Memory while it runs: 20 bytes a token or merge.
  // Errors: ALREADY_EXISTS never; RESOURCE_EXHAUSTED where the map or the disk is full.
  using TokenSource = std::function<Status(const std::function<Status(const VocabToken&)>&)>;
  using MergeSource = std::function<Status(const std::function<Status(std::string_view)>&)>;
  Status Build(const TokenSource& for_each_token, const MergeSource& for_each_merge);

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
  VocabIndex(LmdbEnv& env, const Fingerprint& model) : env_(env), model_(model) {}
  LmdbEnv& env_;
  const Fingerprint model_;
};

}  // namespace thimble
