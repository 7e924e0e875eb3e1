// LMDB, wrapped so that errors are Status values and transactions end with their scope.
//
// Caveats (lmdb.h has them in full):
//  - Memory returned by Get and by a cursor belongs to LMDB: it is valid until the transaction ends
//    or, in a write transaction, until the next update.
//  - One write transaction at a time; no transaction lives across a return to the event loop.
//  - Opened without MDB_WRITEMAP: dirty pages are on the heap until the commit, so a transaction's
//    writes are bounded by its caller (at most 2 MiB).
// Called by: everything in storage/. Memory: the map's pages are page cache, charged to the group
// and given back under pressure.
#pragma once

#include <lmdb.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "storage/base/status.h"

namespace thimble {

struct LmdbOptions {
  uint64_t map_bytes = 0;    // the most the file may grow to; rounded up to a page
  bool sync_commits = true;  // false: MDB_NOSYNC, for what can be computed again
  unsigned max_databases = 16;
  // Of the disk, kept for the file from its beginning, whether it has grown so far or not: writes
  // within it find room on a full disk. Where the file system has none to give, or cannot promise,
  // the environment opens all the same.
  uint64_t reserve_bytes = 0;
};

class LmdbTxn;

class LmdbEnv {
 public:
  // Opens or creates the environment in directory `path` (created 0700 where missing). A lock held
  // by another process is FAILED_PRECONDITION: "... is in use by another thimbled (pid N)".
  static Result<std::unique_ptr<LmdbEnv>> Open(const std::string& path, const LmdbOptions& options);
  ~LmdbEnv();
  LmdbEnv(const LmdbEnv&) = delete;
  LmdbEnv& operator=(const LmdbEnv&) = delete;

  // The handle of a named database, created where missing. `flags`: MDB_INTEGERKEY and the like.
  Result<MDB_dbi> OpenDatabase(const char* name, unsigned flags = 0);

  // A transaction; ended (aborted) by its destructor unless committed. Must not outlive the
  // environment. A second write transaction is INTERNAL, where LMDB would wait for ever.
  Result<LmdbTxn> BeginRead();
  Result<LmdbTxn> BeginWrite();

  // Runs `body` in a write transaction and commits it, for work that gives space back: where the
  // map is full even for that (LMDB copies the pages it changes before it frees them), the map is
  // enlarged by kRemovalBytes for this one transaction. `body` may run twice: it must not change
  // anything but the transaction. Without the reserve where any transaction is open. After a write
  // that found the map or the disk full, an empty turn follows, so that the very next transaction
  // may use what was freed (pages freed by one transaction serve from the next but one).
  Status Remove(const std::function<Status(LmdbTxn&)>& body);

  // Bytes that the file system still has for this user; UINT64_MAX where it does not say.
  [[nodiscard]] uint64_t FreeDiskBytes() const;

  // Flushes what commits without sync have left to the kernel.
  Status Sync();
  // Sync, then lets the kernel drop the file's pages, mapped ones too. No transaction may be open.
  Status DropPageCache();
  // The same without Sync, which may take seconds: pages that are not on disk yet are left, on
  // their way there. Advice: nothing fails. The first `kept_bytes` of the file are unmapped only:
  // the kernel may drop them and need not.
  void ReleasePageCache(uint64_t kept_bytes = 0);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] uint64_t map_bytes() const { return map_bytes_; }
  // Bytes of the map in use (last page number x page size).
  [[nodiscard]] Result<uint64_t> UsedBytes() const;
  // Of the file with the data, and where in it `data`, as Get has returned it, is; nullopt where
  // the kernel does not say where the map is. 50 us after the map has moved, else nothing.
  [[nodiscard]] std::string DataFile() const { return path_ + "/data.mdb"; }
  [[nodiscard]] std::optional<uint64_t> FileOffset(const std::byte* data);

  // Beyond map_bytes, for Remove alone.
  static constexpr uint64_t kRemovalBytes = 1024 * 1024;

 private:
  friend class LmdbTxn;
  LmdbEnv(MDB_env* env, int lock_fd, std::string path, uint64_t map_bytes);
  Status CommitError(int code);
  bool FindMap();  // sets map_; false where the kernel does not say
  void Reserve(uint64_t bytes) const;
  Status Error(int code, std::string_view operation);  // LmdbError, noting starvation
  Status AttemptRemoval(const std::function<Status(LmdbTxn&)>& body);
  MDB_env* env_;
  int lock_fd_;
  std::string path_;
  uint64_t map_bytes_;
  int open_txns_ = 0;  // of either kind: the map must not move under them
  uint64_t turns_ = 0;
  std::byte* map_ = nullptr;  // where it was found; nullptr: it may have moved
  uint64_t mapped_bytes_ = 0;
  bool starved_ = false;     // a write has found the map or the disk full
  bool write_open_ = false;  // a second writer on the one thread would wait for itself for ever
};

using Bytes = std::span<const std::byte>;

inline Bytes AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class LmdbTxn {
 public:
  LmdbTxn() = default;
  LmdbTxn(LmdbTxn&& other) noexcept;
  LmdbTxn& operator=(LmdbTxn&& other) noexcept;
  ~LmdbTxn();

  // The value, or nullopt where there is no such key.
  [[nodiscard]] Result<std::optional<Bytes>> Get(MDB_dbi db, Bytes key) const;
  // Replaces or adds. A full map or disk is RESOURCE_EXHAUSTED; the transaction must then be
  // dropped.
  Status Put(MDB_dbi db, Bytes key, Bytes value, unsigned flags = 0);
  // Adds a value of `bytes` to be filled in by the caller before the next call (MDB_RESERVE).
  Result<std::span<std::byte>> PutReserved(MDB_dbi db, Bytes key, size_t bytes);
  // True where there was one.
  Result<bool> Delete(MDB_dbi db, Bytes key);
  // Visits keys >= `first` in order until the visitor returns false. No writes from the visitor.
  Status Scan(MDB_dbi db, Bytes first,
              const std::function<bool(Bytes key, Bytes value)>& visit) const;
  // The entry with the greatest key < `key`, or nullopt.
  struct Entry {
    Bytes key;
    Bytes value;
  };
  [[nodiscard]] Result<std::optional<Entry>> Before(MDB_dbi db, Bytes key) const;
  // Removes every entry.
  Status Clear(MDB_dbi db);
  // Number of entries.
  [[nodiscard]] Result<uint64_t> Count(MDB_dbi db) const;

  Status Commit();
  void Abort();
  [[nodiscard]] bool open() const { return txn_ != nullptr; }
  [[nodiscard]] MDB_txn* handle() const { return txn_; }

 private:
  friend class LmdbEnv;
  LmdbTxn(MDB_txn* txn, LmdbEnv* env, bool write);
  void Ended();
  MDB_txn* txn_ = nullptr;
  LmdbEnv* env_ = nullptr;
  bool write_ = false;
};

// Creates directory `path` and its missing parents, each 0700. One that exists is left as it is.
Status MakeDirectories(const std::string& path);

// LMDB's error `code` after "OPERATION PATH": MDB_MAP_FULL, MDB_TXN_FULL, ENOSPC, EFBIG and ENOMEM
// are RESOURCE_EXHAUSTED; MDB_CORRUPTED, MDB_PAGE_NOTFOUND, MDB_INVALID and MDB_VERSION_MISMATCH
// DATA_LOSS; MDB_KEYEXIST ALREADY_EXISTS; other codes of LMDB INTERNAL; those of the system as
// ErrnoError.
Status LmdbError(int code, std::string_view operation, std::string_view path);

}  // namespace thimble
