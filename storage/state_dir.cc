#include "storage/state_dir.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace thimble {
namespace {

// cache.mark is one line, "thimble-cache 1 clean BOOT-ID\n" or "thimble-cache 1 dirty BOOT-ID\n".
// Never change this form; the number rises when any byte format in the cache changes.
constexpr std::string_view kMarkPrefix = "thimble-cache 1 ";
constexpr std::string_view kClean = "clean ";
constexpr std::string_view kDirty = "dirty ";

// The beginning of a small file; "" where there is none.
Result<std::string> ReadSmallFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return std::string();
  if (fd < 0) return ErrnoError(errno, "open " + path);
  std::array<char, 256> text{};
  const ssize_t n = ::read(fd, text.data(), text.size());
  const int error = errno;
  ::close(fd);
  if (n < 0) return ErrnoError(error, "read " + path);
  return std::string(text.data(), static_cast<size_t>(n));
}

// Replaces a file so that after a power cut it is the old one or the new one.
Status ReplaceFile(const std::string& directory, const std::string& path, std::string_view text) {
  const std::string fresh = path + ".new";
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoError(errno, "create " + fresh);
  const ssize_t n = ::write(fd, text.data(), text.size());
  int error = n < 0 ? errno : static_cast<size_t>(n) < text.size() ? ENOSPC : 0;
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  ::close(fd);
  if (error != 0) return ErrnoError(error, "write " + fresh);
  if (::rename(fresh.c_str(), path.c_str()) != 0) return ErrnoError(errno, "rename " + fresh);
  const int dir = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return ErrnoError(errno, "open " + directory);
  error = ::fsync(dir) == 0 ? 0 : errno;
  ::close(dir);
  // Some file systems cannot sync a directory; they have no better answer than the rename.
  return error == 0 || error == EINVAL ? Status() : ErrnoError(error, "sync " + directory);
}

Status DeleteFile(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return ErrnoError(errno, "remove " + path);
}

// LMDB's files; not owner.lock, which somebody may hold.
Status DiscardFiles(const std::string& directory) {
  THIMBLE_RETURN_IF_ERROR(DeleteFile(directory + "/data.mdb"));
  return DeleteFile(directory + "/lock.mdb");
}

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// Why the cache that `mark` describes cannot be trusted under boot `boot_id`; "" where it can.
std::string Distrust(std::string_view mark, std::string_view boot_id) {
  if (mark.empty()) return "its mark is missing";
  if (!mark.starts_with(kMarkPrefix)) return "it is of another format version";
  mark.remove_prefix(kMarkPrefix.size());
  if (mark.ends_with('\n')) mark.remove_suffix(1);
  if (mark.starts_with(kClean)) return "";
  if (!mark.starts_with(kDirty)) return "its mark is damaged";
  mark.remove_prefix(kDirty.size());
  if (mark.empty() || mark != boot_id) return "the machine was restarted without closing it";
  return "";
}

}  // namespace

Result<StateDir> StateDir::Open(const std::string& path, const StateDirOptions& options) {
  StateDir state;
  const std::string journal_path = path + "/journal";
  auto journal = LmdbEnv::Open(journal_path, {.map_bytes = options.journal_bytes,
                                              .reserve_bytes = options.journal_reserve_bytes});
  if (!journal.ok()) {
    if (journal.status().code() != StatusCode::kDataLoss) return journal.status();
    return DataLossError(journal.status().message() +
                         "; the journal of accepted requests is damaged: restore " + journal_path +
                         " from a copy, or move it away to start without these requests");
  }
  state.journal = std::move(journal).value();
  // From here on no other daemon gets in: the journal's lock is ours.
  THIMBLE_ASSIGN_OR_RETURN(state.boot_id_, ReadSmallFile(options.boot_id_path));
  while (state.boot_id_.ends_with('\n')) state.boot_id_.pop_back();
  state.mark_path_ = path + "/cache.mark";
  THIMBLE_RETURN_IF_ERROR(state.OpenCache(path, options));
  return state;
}

Status StateDir::OpenCache(const std::string& directory, const StateDirOptions& options) {
  const std::string cache_path = directory + "/cache";
  const LmdbOptions cache_options = {.map_bytes = options.cache_bytes, .sync_commits = false};
  if (Exists(cache_path + "/data.mdb")) {
    THIMBLE_ASSIGN_OR_RETURN(const std::string mark, ReadSmallFile(mark_path_));
    if (const std::string why = Distrust(mark, boot_id_); !why.empty()) {
      THIMBLE_RETURN_IF_ERROR(DiscardFiles(cache_path));
      notes.push_back("discarded the cache in " + cache_path + ": " + why);
    }
  }
  // Before LMDB writes its first page: a power cut from here on must find "dirty".
  const std::string dirty = std::string(kMarkPrefix).append(kDirty).append(boot_id_) + "\n";
  Status marked = ReplaceFile(directory, mark_path_, dirty);
  if (marked.code() == StatusCode::kResourceExhausted && Exists(cache_path + "/data.mdb")) {
    // The disk is full, and what fills it can be computed again: accepted requests come first.
    THIMBLE_RETURN_IF_ERROR(DiscardFiles(cache_path));
    notes.push_back("discarded the cache in " + cache_path + " to make room: " + marked.message());
    marked = ReplaceFile(directory, mark_path_, dirty);
  }
  if (!marked.ok()) return marked;

  auto opened = LmdbEnv::Open(cache_path, cache_options);
  if (opened.status().code() == StatusCode::kDataLoss) {
    THIMBLE_RETURN_IF_ERROR(DiscardFiles(cache_path));
    notes.push_back("discarded the cache in " + cache_path + ": " + opened.status().message());
    opened = LmdbEnv::Open(cache_path, cache_options);
  }
  if (!opened.ok()) return opened.status();
  cache = std::move(opened).value();
  return {};
}

Status StateDir::Close() {
  // The journal's lock goes last: the next daemon must not mark the cache before we have.
  Status status;
  if (cache) {
    const std::string cache_path = cache->path();
    status = cache->Sync();
    cache.reset();
    const std::string directory = cache_path.substr(0, cache_path.rfind('/'));
    const std::string clean = std::string(kMarkPrefix).append(kClean).append(boot_id_) + "\n";
    if (status.ok()) status = ReplaceFile(directory, mark_path_, clean);
  }
  journal.reset();
  return status;
}

}  // namespace thimble
