// The journal: accepted requests and the tokens they have emitted, in an LMDB environment of its
// own, synced, so that an accepted request survives `kill -9` and a power cut. docs/storage.md has
// the byte formats. Called by: the queue (accept, finish), the engine (tokens), start-up
// (recovery). Memory: one record at a time.
//
// The journal does not know what a request is: it keeps the bytes its caller gives it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/status.h"
#include "storage/lmdb.h"

namespace thimble {

struct JournalToken {
  int32_t id = 0;
};

class Journal {
 public:
  static Result<std::unique_ptr<Journal>> Open(LmdbEnv& journal);

  // Durable on return. Numbers rise from 1 and are never used again. `name` is the request's own
  // name (may be empty, at most 256 bytes, else unique: ALREADY_EXISTS); `request` at most 1 MiB.
  // Where the journal is full, requests that have ended are let go, the oldest first; then
  // RESOURCE_EXHAUSTED.
  Result<uint64_t> Accept(std::string_view name, std::string_view request);

  // Appends tokens of several requests in one durable commit: all or none.
  // INVALID_ARGUMENT where `index` is not the number of tokens the request has, NOT_FOUND,
  // FAILED_PRECONDITION where it has ended; makes room as Accept does.
  struct Emitted {
    uint64_t number;
    uint32_t index;  // of the first token in `tokens`, 0-based
    std::span<const int32_t> tokens;
  };
  Status AppendTokens(std::span<const Emitted> emitted);

  // Records the end; `outcome` is the caller's bytes. Tokens and request are kept until Remove or
  // until more than `keep` requests have ended (those that ended first go first). Works on a full
  // journal. FAILED_PRECONDITION where it has ended before.
  Status Finish(uint64_t number, std::string_view outcome, uint32_t keep = 64);
  Status Remove(uint64_t number);

  struct Entry {
    uint64_t number = 0;
    std::string name;
    std::string request;
    std::vector<int32_t> tokens;
    std::optional<std::string> outcome;  // nullopt: not finished
  };
  [[nodiscard]] Result<Entry> Load(uint64_t number);  // NOT_FOUND
  [[nodiscard]] Result<std::optional<uint64_t>> FindByName(std::string_view name);
  // Numbers of the requests that have not finished, in order of acceptance.
  [[nodiscard]] Result<std::vector<uint64_t>> Unfinished();

 private:
  explicit Journal(LmdbEnv& env) : env_(env) {}
  Status AppendOne(LmdbTxn& txn, const Emitted& emitted);
  Result<bool> RemoveOne(LmdbTxn& txn, uint64_t number);  // false where there is none
  Status RemoveOldestFinished(LmdbTxn& txn);              // there must be one
  Result<bool> DropOldestFinished();                      // false where there is none

  LmdbEnv& env_;
  MDB_dbi requests_ = 0;
  MDB_dbi tokens_ = 0;
  MDB_dbi outcomes_ = 0;
  MDB_dbi finished_ = 0;
  MDB_dbi names_ = 0;
  MDB_dbi state_ = 0;
};

}  // namespace thimble
