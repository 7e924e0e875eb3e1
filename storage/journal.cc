#include "storage/journal.h"

#include <xxhash.h>

#include <cstring>
#include <utility>

#include "storage/encoding.h"

namespace thimble {
namespace {

// Databases. Never change these names, keys or values (numbers in values are little-endian):
//  "requests" [number u64 BE]                      -> record: name length u16, name, request
//  "tokens"   [number u64 BE][first index u32 BE]  -> record: tokens i32 each
//  "outcomes" [number u64 BE]                      -> record: place in "finished" u64, outcome
//  "finished" [place u64 BE], in order of ending   -> number u64
//  "names"    name                                 -> number u64
//  "state"    "next_number"                        -> u64: the number of the next request
// A record is: version u8, its fields, XXH3-64 u64 of the key and everything before the checksum.
constexpr char kRecordVersion = 1;
constexpr size_t kChecksumBytes = 8;
constexpr std::string_view kNextNumber = "next_number";

// LMDB's longest key is 511 bytes; a request is one transaction's dirty pages.
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxRequestBytes = size_t{1024} * 1024;

uint64_t Checksum(Bytes key, std::string_view record) {
  return XXH3_64bits_withSeed(record.data(), record.size(), XXH3_64bits(key.data(), key.size()));
}

std::string Seal(const Key& key, std::string fields) {
  std::string record = kRecordVersion + std::move(fields);
  AppendLe(record, Checksum(key.bytes(), record));
  return record;
}

// The record's fields, or DATA_LOSS.
Result<Bytes> Unseal(Bytes key, Bytes record, const std::string& what) {
  if (record.size() < 1 + kChecksumBytes) return DataLossError(what + ": record cut short");
  const Bytes body = record.first(record.size() - kChecksumBytes);
  ValueReader tail(record.last(kChecksumBytes));
  if (tail.Le<uint64_t>() != Checksum(key, AsText(body))) {
    return DataLossError(what + ": checksum does not match");
  }
  if (static_cast<char>(body[0]) != kRecordVersion) {
    return DataLossError(what + ": record version " +
                         std::to_string(static_cast<unsigned>(body[0])) + ", expected 1");
  }
  return body.subspan(1);
}

std::string RequestName(uint64_t number) { return "request " + std::to_string(number); }

std::string U64(uint64_t v) {
  std::string out;
  AppendLe(out, v);
  return out;
}

// Writes may find the journal full: then the oldest request that has ended is let go and the write
// tried again. Pages freed by a transaction serve from the next but one, hence the loop.
template <typename Write, typename DropOldest>
Status RetryWithRoom(const Write& write, const DropOldest& drop_oldest) {
  Status status = write();
  while (status.code() == StatusCode::kResourceExhausted) {
    Result<bool> dropped = drop_oldest();
    if (!dropped.ok() || !*dropped) return status;
    status = write();
  }
  return status;
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::Open(LmdbEnv& journal) {
  std::unique_ptr<Journal> out(new Journal(journal));
  THIMBLE_ASSIGN_OR_RETURN(out->requests_, journal.OpenDatabase("requests"));
  THIMBLE_ASSIGN_OR_RETURN(out->tokens_, journal.OpenDatabase("tokens"));
  THIMBLE_ASSIGN_OR_RETURN(out->outcomes_, journal.OpenDatabase("outcomes"));
  THIMBLE_ASSIGN_OR_RETURN(out->finished_, journal.OpenDatabase("finished"));
  THIMBLE_ASSIGN_OR_RETURN(out->names_, journal.OpenDatabase("names"));
  THIMBLE_ASSIGN_OR_RETURN(out->state_, journal.OpenDatabase("state"));
  return out;
}

Result<uint64_t> Journal::Accept(std::string_view name, std::string_view request) {
  if (name.size() > kMaxNameBytes || request.size() > kMaxRequestBytes) {
    return InvalidArgumentError("accept a request of " + std::to_string(request.size()) +
                                " bytes, name of " + std::to_string(name.size()) +
                                ": at most 1048576 and 256");
  }
  uint64_t number = 0;
  const auto write = [&]() -> Status {
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
    THIMBLE_ASSIGN_OR_RETURN(const auto next, txn.Get(state_, AsBytes(kNextNumber)));
    number = next ? ValueReader(*next).Le<uint64_t>() : 1;
    if (number == 0) return DataLossError("accept a request: next_number of the journal is 0");
    if (!name.empty()) {
      const std::string value = U64(number);
      Status status = txn.Put(names_, AsBytes(name), AsBytes(value), MDB_NOOVERWRITE);
      if (status.code() == StatusCode::kAlreadyExists) {
        return AlreadyExistsError("accept request \"" + std::string(name) +
                                  "\": there is one of this name");
      }
      THIMBLE_RETURN_IF_ERROR(std::move(status));
    }
    const Key key = Key().U64(number);
    std::string fields;
    AppendLe(fields, static_cast<uint16_t>(name.size()));
    fields.append(name).append(request);
    const std::string record = Seal(key, std::move(fields));
    THIMBLE_RETURN_IF_ERROR(txn.Put(requests_, key.bytes(), AsBytes(record), MDB_NOOVERWRITE));
    const std::string following = U64(number + 1);
    THIMBLE_RETURN_IF_ERROR(txn.Put(state_, AsBytes(kNextNumber), AsBytes(following)));
    return txn.Commit();
  };
  THIMBLE_RETURN_IF_ERROR(RetryWithRoom(write, [this] { return DropOldestFinished(); }));
  return number;
}

Status Journal::AppendTokens(std::span<const Emitted> emitted) {
  const auto write = [&]() -> Status {
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
    for (const Emitted& e : emitted) {
      if (!e.tokens.empty()) THIMBLE_RETURN_IF_ERROR(AppendOne(txn, e));
    }
    return txn.Commit();
  };
  return RetryWithRoom(write, [this] { return DropOldestFinished(); });
}

Status Journal::AppendOne(LmdbTxn& txn, const Emitted& emitted) {
  const std::string what = "append tokens to " + RequestName(emitted.number);
  const Key request = Key().U64(emitted.number);
  THIMBLE_ASSIGN_OR_RETURN(const auto known, txn.Get(requests_, request.bytes()));
  if (!known) return NotFoundError(what + ": no such request");
  THIMBLE_ASSIGN_OR_RETURN(const auto ended, txn.Get(outcomes_, request.bytes()));
  if (ended) return FailedPreconditionError(what + ": it has ended");

  const Key after = Key().U64(emitted.number + 1);
  THIMBLE_ASSIGN_OR_RETURN(const auto last, txn.Before(tokens_, after.bytes()));
  uint64_t expected = 0;
  if (last && last->key.size() == 12 && KeyNumber(last->key, 0, 8) == emitted.number) {
    THIMBLE_ASSIGN_OR_RETURN(const Bytes fields, Unseal(last->key, last->value, what));
    expected = KeyNumber(last->key, 8, 4) + fields.size() / sizeof(int32_t);
  }
  if (emitted.index != expected) {
    return InvalidArgumentError(what + ": they begin at " + std::to_string(emitted.index) +
                                ", expected " + std::to_string(expected));
  }
  const Key key = Key().U64(emitted.number).U32(emitted.index);
  const std::string record = Seal(key, std::string(AsText(std::as_bytes(emitted.tokens))));
  return txn.Put(tokens_, key.bytes(), AsBytes(record), MDB_NOOVERWRITE);
}

Status Journal::Finish(uint64_t number, std::string_view outcome, uint32_t keep) {
  const std::string what = "finish " + RequestName(number);
  if (outcome.size() > kMaxRequestBytes) {
    return InvalidArgumentError(what + ": outcome of " + std::to_string(outcome.size()) +
                                " bytes, at most 1048576");
  }
  uint64_t excess = 0;
  const auto write = [&](LmdbTxn& txn) -> Status {
    const Key key = Key().U64(number);
    THIMBLE_ASSIGN_OR_RETURN(const auto known, txn.Get(requests_, key.bytes()));
    if (!known) return NotFoundError(what + ": no such request");
    const Key end = Key().U64(UINT64_MAX);
    THIMBLE_ASSIGN_OR_RETURN(const auto last, txn.Before(finished_, end.bytes()));
    const uint64_t place = last && last->key.size() == 8 ? KeyNumber(last->key, 0, 8) + 1 : 1;
    const std::string record = Seal(key, U64(place).append(outcome));
    Status status = txn.Put(outcomes_, key.bytes(), AsBytes(record), MDB_NOOVERWRITE);
    if (status.code() == StatusCode::kAlreadyExists) {
      return FailedPreconditionError(what + ": it has ended before");
    }
    THIMBLE_RETURN_IF_ERROR(std::move(status));
    const std::string value = U64(number);
    THIMBLE_RETURN_IF_ERROR(txn.Put(finished_, Key().U64(place).bytes(), AsBytes(value)));
    THIMBLE_ASSIGN_OR_RETURN(const uint64_t count, txn.Count(finished_));
    excess = count > keep ? count - keep : 0;
    // Ordinarily one goes as one comes, in the same synced commit.
    if (excess > 0) {
      THIMBLE_RETURN_IF_ERROR(RemoveOldestFinished(txn));
      --excess;
    }
    return {};
  };
  THIMBLE_RETURN_IF_ERROR(env_.Remove(write));
  for (; excess > 0; --excess) THIMBLE_RETURN_IF_ERROR(DropOldestFinished().status());
  return {};
}

Status Journal::Remove(uint64_t number) {
  return env_.Remove([&](LmdbTxn& txn) -> Status {
    THIMBLE_ASSIGN_OR_RETURN(const bool removed, RemoveOne(txn, number));
    if (!removed) return NotFoundError("remove " + RequestName(number) + ": no such request");
    return {};
  });
}

Result<bool> Journal::DropOldestFinished() {
  {
    THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
    THIMBLE_ASSIGN_OR_RETURN(const uint64_t count, txn.Count(finished_));
    if (count == 0) return false;
  }
  THIMBLE_RETURN_IF_ERROR(env_.Remove([this](LmdbTxn& txn) { return RemoveOldestFinished(txn); }));
  return true;
}

Status Journal::RemoveOldestFinished(LmdbTxn& txn) {
  std::string place;
  uint64_t number = 0;
  THIMBLE_RETURN_IF_ERROR(txn.Scan(finished_, {}, [&](Bytes key, Bytes value) {
    place = AsText(key);
    number = ValueReader(value).Le<uint64_t>();
    return false;
  }));
  // Its own entry goes even where the request is not there (it should be): the list must shrink.
  THIMBLE_RETURN_IF_ERROR(txn.Delete(finished_, AsBytes(place)).status());
  return RemoveOne(txn, number).status();
}

Result<bool> Journal::RemoveOne(LmdbTxn& txn, uint64_t number) {
  const Key key = Key().U64(number);
  THIMBLE_ASSIGN_OR_RETURN(const auto record, txn.Get(requests_, key.bytes()));
  if (!record) return false;
  // A damaged record has lost its name: whatever points to the number goes.
  std::string name;
  if (auto fields = Unseal(key.bytes(), *record, "remove"); fields.ok()) {
    ValueReader reader(*fields);
    name = AsText(reader.Take(reader.Le<uint16_t>()));
  } else {
    THIMBLE_RETURN_IF_ERROR(txn.Scan(names_, {}, [&](Bytes text, Bytes value) {
      if (ValueReader(value).Le<uint64_t>() != number) return true;
      name = AsText(text);
      return false;
    }));
  }
  if (!name.empty()) THIMBLE_RETURN_IF_ERROR(txn.Delete(names_, AsBytes(name)).status());
  THIMBLE_ASSIGN_OR_RETURN(const auto outcome, txn.Get(outcomes_, key.bytes()));
  if (outcome) {
    if (auto fields = Unseal(key.bytes(), *outcome, "remove"); fields.ok()) {
      const uint64_t place = ValueReader(*fields).Le<uint64_t>();
      THIMBLE_RETURN_IF_ERROR(txn.Delete(finished_, Key().U64(place).bytes()).status());
    }
    THIMBLE_RETURN_IF_ERROR(txn.Delete(outcomes_, key.bytes()).status());
  }
  const Key after = Key().U64(number + 1);
  while (true) {
    THIMBLE_ASSIGN_OR_RETURN(const auto last, txn.Before(tokens_, after.bytes()));
    if (!last || last->key.size() != 12 || KeyNumber(last->key, 0, 8) != number) break;
    const Key token = Key().U64(number).U32(static_cast<uint32_t>(KeyNumber(last->key, 8, 4)));
    THIMBLE_RETURN_IF_ERROR(txn.Delete(tokens_, token.bytes()).status());
  }
  return txn.Delete(requests_, key.bytes());
}

Result<Journal::Entry> Journal::Load(uint64_t number) {
  const std::string what = "load " + RequestName(number) + " from " + env_.path();
  const Key key = Key().U64(number);
  Entry entry;
  entry.number = number;
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  THIMBLE_ASSIGN_OR_RETURN(const auto request, txn.Get(requests_, key.bytes()));
  if (!request) return NotFoundError(what + ": no such request");
  THIMBLE_ASSIGN_OR_RETURN(const Bytes fields, Unseal(key.bytes(), *request, what));
  ValueReader reader(fields);
  entry.name = AsText(reader.Take(reader.Le<uint16_t>()));
  if (!reader.ok()) return DataLossError(what + ": the name is cut short");
  entry.request = AsText(reader.rest());

  Status status;
  const auto visit = [&](Bytes token_key, Bytes record) {
    if (token_key.size() != 12 || KeyNumber(token_key, 0, 8) != number) return false;
    const Result<Bytes> tokens = Unseal(token_key, record, what);
    const uint64_t first = KeyNumber(token_key, 8, 4);
    if (!tokens.ok()) {
      status = tokens.status();
    } else if (first != entry.tokens.size() || tokens->size() % sizeof(int32_t) != 0) {
      status = DataLossError(what + ": tokens begin at " + std::to_string(first) + ", expected " +
                             std::to_string(entry.tokens.size()));
    } else {
      entry.tokens.resize(first + tokens->size() / sizeof(int32_t));
      if (!tokens->empty()) std::memcpy(&entry.tokens[first], tokens->data(), tokens->size());
    }
    return status.ok();
  };
  THIMBLE_RETURN_IF_ERROR(txn.Scan(tokens_, key.bytes(), visit));
  THIMBLE_RETURN_IF_ERROR(std::move(status));

  THIMBLE_ASSIGN_OR_RETURN(const auto outcome, txn.Get(outcomes_, key.bytes()));
  if (outcome) {
    THIMBLE_ASSIGN_OR_RETURN(const Bytes end, Unseal(key.bytes(), *outcome, what));
    if (end.size() < sizeof(uint64_t)) return DataLossError(what + ": the outcome is cut short");
    entry.outcome = AsText(end.subspan(sizeof(uint64_t)));
  }
  return entry;
}

Result<std::optional<uint64_t>> Journal::FindByName(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return std::optional<uint64_t>();
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  THIMBLE_ASSIGN_OR_RETURN(const auto value, txn.Get(names_, AsBytes(name)));
  if (!value) return std::optional<uint64_t>();
  return std::optional<uint64_t>(ValueReader(*value).Le<uint64_t>());
}

Result<std::vector<uint64_t>> Journal::Unfinished() {
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  std::vector<uint64_t> numbers;
  Status status;
  const auto visit = [&](Bytes key, Bytes) {
    const Result<std::optional<Bytes>> outcome = txn.Get(outcomes_, key);
    if (!outcome.ok()) {
      status = outcome.status();
      return false;
    }
    if (key.size() == 8 && !outcome->has_value()) numbers.push_back(KeyNumber(key, 0, 8));
    return true;
  };
  THIMBLE_RETURN_IF_ERROR(txn.Scan(requests_, {}, visit));
  THIMBLE_RETURN_IF_ERROR(std::move(status));
  return numbers;
}

}  // namespace thimble
