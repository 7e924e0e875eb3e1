// The state directory: the two LMDB environments, `journal` (durable) and `cache` (can be computed
// again), and the decision whether the cache of an earlier run can be trusted.
//
// The cache commits without sync: after a crash of the process its file is sound, since the kernel
// holds the pages; after a power cut it may be anything. A file beside it, `cache.mark`, says under
// which boot it was written and whether it was closed cleanly; it is read before LMDB reads a page.
// docs/storage.md has the files and the order of recovery. Called by: daemon start-up and shutdown.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "storage/base/status.h"
#include "storage/lmdb.h"

namespace thimble {

struct StateDirOptions {
  uint64_t journal_bytes = uint64_t{64} << 20;  // most the journal's file may grow to
  // Of the disk, kept for the journal: what is accepted can be recorded on a full disk. Room for
  // some hundred requests with their tokens.
  uint64_t journal_reserve_bytes = uint64_t{4} << 20;
  uint64_t cache_bytes = uint64_t{1} << 30;  // most the cache's file may grow to
  std::string boot_id_path = "/proc/sys/kernel/random/boot_id";
};

struct StateDir {
  std::unique_ptr<LmdbEnv> journal;
  std::unique_ptr<LmdbEnv> cache;
  std::vector<std::string> notes;  // for the log: "discarded the cache: ..."

  // Opens or creates both under directory `path`. FAILED_PRECONDITION where another process has it;
  // DATA_LOSS where the journal is damaged: it is never discarded by itself, the message says what
  // to do. A cache that cannot be trusted is discarded and made anew, with a note.
  static Result<StateDir> Open(const std::string& path, const StateDirOptions& options = {});

  // Writes the cache to the disk, closes both environments and marks the cache as clean. What holds
  // references to them must be gone. Without Close (a crash, the destructor) the cache is kept as
  // long as the machine is not restarted.
  Status Close();

 private:
  Status OpenCache(const std::string& directory, const StateDirOptions& options);
  std::string mark_path_;
  std::string boot_id_;
};

}  // namespace thimble
