#include "storage/lmdb.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <utility>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

// A 32-bit process has 2 to 3 GiB of addresses for everything.
constexpr uint64_t kMax32BitMapBytes = kGiB - kMiB;
constexpr const char* kLockFile = "/owner.lock";
// In the unnamed database, beside the names of the others; its value has no meaning.
constexpr std::string_view kTurnKey = ".turn";

MDB_val Val(Bytes bytes) {
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};  // LMDB doesn't write to it
}
Bytes FromVal(const MDB_val& value) {
  return {static_cast<const std::byte*>(value.mv_data), value.mv_size};
}

// The page size is a power of two on every platform of ours.
uint64_t ClampMap(uint64_t map_bytes) {
  if (sizeof(size_t) == 4) map_bytes = std::min(map_bytes, kMax32BitMapBytes);
  return AlignUp(map_bytes, static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
}

// Takes the lock that says which process owns the directory; it goes with the process.
Result<int> TakeOwnership(const std::string& directory) {
  const std::string path = directory + kLockFile;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoError(errno, "open " + path);
  std::array<char, 24> text{};
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
    ::close(fd);
    if (error != EWOULDBLOCK) return ErrnoError(error, "lock " + path);
    std::string_view pid(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
    pid = pid.substr(0, pid.find('\n'));
    return FailedPreconditionError("open " + directory + ": is in use by another thimbled (pid " +
                                   (pid.empty() ? "unknown" : std::string(pid)) + ")");
  }
  char* end = std::to_chars(text.data(), text.data() + text.size() - 1, ::getpid()).ptr;
  *end++ = '\n';
  // The number is for the message alone: a full disk is no reason to refuse the directory.
  if (::ftruncate(fd, 0) == 0) (void)!::pwrite(fd, text.data(), end - text.data(), 0);
  return fd;
}

struct Mapping {
  void* address = nullptr;  // null: not found
  size_t bytes = 0;
};

// Where the shared, read-only map of the file `fd` is: LMDB does not tell (me_mapaddr is for
// MDB_FIXEDMAP alone), the kernel does.
Mapping FindMapping(int fd) {
  std::error_code error;
  const std::string file =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error).string();
  std::ifstream maps("/proc/self/maps");
  // "7f0000000000-7f0040000000 r--s 00000000 fe:00 1234      /path"
  for (std::string line; !error && std::getline(maps, line);) {
    if (!line.ends_with(file) || line.find(" r--s 00000000 ") == std::string::npos) continue;
    uintptr_t begin = 0;
    uintptr_t end = 0;
    const char* const text = line.data();
    const auto dash = std::from_chars(text, text + line.size(), begin, 16);
    if (dash.ec != std::errc() || *dash.ptr != '-') continue;
    if (std::from_chars(dash.ptr + 1, text + line.size(), end, 16).ec != std::errc()) continue;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel gives addresses as numbers
    return {reinterpret_cast<void*>(begin), static_cast<size_t>(end - begin)};
  }
  return {};
}

// LMDB reads through a map, where a page past the end of the file is SIGBUS. A file that was cut
// short is extended by zeros: these pages then are MDB_CORRUPTED, or fail their record's checksum.
// (A sound file may be short too, where the last pages were freed by the transaction that took
// them.)
Status CoverLastPage(MDB_env* env, const std::string& path) {
  MDB_envinfo info{};
  MDB_stat stat{};
  int fd = -1;
  mdb_env_info(env, &info);
  mdb_env_stat(env, &stat);
  if (const int code = mdb_env_get_fd(env, &fd); code != 0) return LmdbError(code, "open", path);
  struct stat file {};
  if (::fstat(fd, &file) != 0) return ErrnoError(errno, "stat " + path);
  const uint64_t needed = (uint64_t{info.me_last_pgno} + 1) * stat.ms_psize;
  if (static_cast<uint64_t>(file.st_size) >= needed) return {};
  if (::ftruncate(fd, static_cast<off_t>(needed)) != 0) return LmdbError(errno, "extend", path);
  return {};
}

// What the file system answers to writing 2 MiB past the end of the data file's length: 0 or an
// errno. Written to a file without a name, so that nothing of it stays.
int ProbeForSpace(const std::string& directory, off_t offset) {
  const int fd = ::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return errno;
  static constexpr std::array<char, 16384> kZeros{};
  int error = 0;
  for (uint64_t done = 0; done < 2 * kMiB && error == 0; done += kZeros.size()) {
    if (::pwrite(fd, kZeros.data(), kZeros.size(), offset + static_cast<off_t>(done)) < 0) {
      error = errno;
    }
  }
  ::close(fd);
  return error;
}

}  // namespace

Status LmdbError(int code, std::string_view operation, std::string_view path) {
  std::string what = std::string(operation) + " " + std::string(path);
  switch (code) {
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case MDB_READERS_FULL:
    case MDB_DBS_FULL:
    case EFBIG:
      return ResourceExhaustedError(what + ": " + mdb_strerror(code));
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
      return DataLossError(what + ": " + mdb_strerror(code));
    case MDB_KEYEXIST:
      return AlreadyExistsError(what + ": " + mdb_strerror(code));
    default:
      if (code < 0) return InternalError(what + ": " + mdb_strerror(code));
      return ErrnoError(code, what);
  }
}

Status MakeDirectories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      const int error = errno;
      struct stat existing {};
      // A read-only parent that is already there answers EROFS or EACCES, not EEXIST.
      if (::stat(part.c_str(), &existing) != 0) return ErrnoError(error, "create " + part);
    }
    if (end == std::string::npos) return {};
  }
}

LmdbEnv::LmdbEnv(MDB_env* env, int lock_fd, std::string path, uint64_t map_bytes)
    : env_(env), lock_fd_(lock_fd), path_(std::move(path)), map_bytes_(map_bytes) {}

LmdbEnv::~LmdbEnv() {
  mdb_env_close(env_);
  ::close(lock_fd_);
}

Result<std::unique_ptr<LmdbEnv>> LmdbEnv::Open(const std::string& path,
                                               const LmdbOptions& options) {
  THIMBLE_RETURN_IF_ERROR(MakeDirectories(path));
  THIMBLE_ASSIGN_OR_RETURN(const int lock_fd, TakeOwnership(path));
  MDB_env* handle = nullptr;
  if (const int code = mdb_env_create(&handle); code != 0) {
    ::close(lock_fd);
    return LmdbError(code, "open", path);
  }
  const uint64_t map_bytes = ClampMap(options.map_bytes);
  std::unique_ptr<LmdbEnv> env(new LmdbEnv(handle, lock_fd, path, map_bytes));
  // NOTLS: a reader belongs to its object, not to the thread. NORDAHEAD: neighbours of a page that
  // is read are mostly of no use, and they would be charged to the group.
  unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
  if (!options.sync_commits) flags |= MDB_NOSYNC | MDB_NOMETASYNC;
  int code = mdb_env_set_mapsize(handle, static_cast<size_t>(map_bytes));
  if (code == 0) code = mdb_env_set_maxdbs(handle, options.max_databases);
  if (code == 0) code = mdb_env_open(handle, path.c_str(), flags, 0600);
  if (code != 0) return LmdbError(code, "open", path);
  THIMBLE_RETURN_IF_ERROR(CoverLastPage(handle, path));
  env->Reserve(options.reserve_bytes);
  return env;
}

Result<MDB_dbi> LmdbEnv::OpenDatabase(const char* name, unsigned flags) {
  MDB_dbi db = 0;
  // Without writing where it is there already. The handle stays only where its transaction commits.
  for (const unsigned create : {0U, unsigned{MDB_CREATE}}) {
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, create != 0 ? BeginWrite() : BeginRead());
    const int code = mdb_dbi_open(txn.handle(), name, flags | create, &db);
    if (code == MDB_NOTFOUND && create == 0) continue;
    if (code != 0) return LmdbError(code, std::string("open database ") + name + " of", path_);
    THIMBLE_RETURN_IF_ERROR(txn.Commit());
    break;
  }
  return db;
}

Result<LmdbTxn> LmdbEnv::BeginRead() {
  MDB_txn* txn = nullptr;
  const int code = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn);
  if (code != 0) return LmdbError(code, "begin reading", path_);
  return LmdbTxn(txn, this, false);
}

Result<LmdbTxn> LmdbEnv::BeginWrite() {
  if (write_open_) {
    return InternalError("begin writing " + path_ + ": a write transaction is open already");
  }
  MDB_txn* txn = nullptr;
  const int code = mdb_txn_begin(env_, nullptr, 0, &txn);
  if (code != 0) return LmdbError(code, "begin writing", path_);
  return LmdbTxn(txn, this, true);
}

Status LmdbEnv::AttemptRemoval(const std::function<Status(LmdbTxn&)>& body) {
  THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, BeginWrite());
  THIMBLE_RETURN_IF_ERROR(body(txn));
  return txn.Commit();
}

Status LmdbEnv::Remove(const std::function<Status(LmdbTxn&)>& body) {
  const bool was_starved = starved_;
  Status status = AttemptRemoval(body);
  const bool full = status.code() == StatusCode::kResourceExhausted;
  if ((!full && !was_starved) || open_txns_ != 0) return status;
  map_ = nullptr;
  int code = mdb_env_set_mapsize(env_, static_cast<size_t>(map_bytes_ + kRemovalBytes));
  if (code != 0) return LmdbError(code, "enlarge the map of", path_);
  if (full) status = AttemptRemoval(body);
  if (status.ok()) {
    // Any change makes a transaction. Where even this finds no room, the next removal tries again.
    const Status turned = AttemptRemoval([this](LmdbTxn& txn) -> Status {
      MDB_dbi main = 0;
      if (const int error = mdb_dbi_open(txn.handle(), nullptr, 0, &main); error != 0) {
        return LmdbError(error, "open", path_);
      }
      const uint64_t turn = ++turns_;
      return txn.Put(main, AsBytes(kTurnKey), std::as_bytes(std::span(&turn, 1)));
    });
    starved_ = !turned.ok();
  }
  map_ = nullptr;
  // LMDB keeps it larger where pages past map_bytes are in use.
  code = mdb_env_set_mapsize(env_, static_cast<size_t>(map_bytes_));
  if (status.ok() && code != 0) return LmdbError(code, "restore the map of", path_);
  return status;
}

// The length stays what LMDB has written: it reads through a map.
void LmdbEnv::Reserve(uint64_t bytes) const {
  int fd = -1;
  if (bytes == 0 || mdb_env_get_fd(env_, &fd) != 0) return;
  (void)::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
}

uint64_t LmdbEnv::FreeDiskBytes() const {
  struct statvfs disk {};
  if (::statvfs(path_.c_str(), &disk) != 0) return UINT64_MAX;
  uint64_t bytes = 0;
  return CheckedMul(uint64_t{disk.f_bavail}, uint64_t{disk.f_frsize}, &bytes) ? bytes : UINT64_MAX;
}

Status LmdbEnv::Sync() {
  const int code = mdb_env_sync(env_, 1);
  return code == 0 ? Status() : LmdbError(code, "sync", path_);
}

Status LmdbEnv::DropPageCache() {
  THIMBLE_RETURN_IF_ERROR(Sync());
  ReleasePageCache();
  return {};
}

void LmdbEnv::ReleasePageCache(uint64_t kept_bytes) {
  mdb_filehandle_t fd = -1;
  if (mdb_env_get_fd(env_, &fd) != 0) return;
  // The map is shared and read-only: its pages come back from the file. As long as they are mapped
  // the kernel keeps them.
  if (FindMap())
    static_cast<void>(::madvise(map_, static_cast<size_t>(mapped_bytes_), MADV_DONTNEED));
  static_cast<void>(::posix_fadvise(fd, static_cast<off_t>(kept_bytes), 0, POSIX_FADV_DONTNEED));
}

bool LmdbEnv::FindMap() {
  mdb_filehandle_t fd = -1;
  if (map_ == nullptr && mdb_env_get_fd(env_, &fd) == 0) {
    const Mapping map = FindMapping(fd);
    map_ = static_cast<std::byte*>(map.address);
    mapped_bytes_ = map.bytes;
  }
  return map_ != nullptr;
}

std::optional<uint64_t> LmdbEnv::FileOffset(const std::byte* data) {
  if (!FindMap() || data < map_ || data >= map_ + mapped_bytes_) return std::nullopt;
  return static_cast<uint64_t>(data - map_);
}

Result<uint64_t> LmdbEnv::UsedBytes() const {
  MDB_envinfo info{};
  MDB_stat stat{};
  int code = mdb_env_info(env_, &info);
  if (code == 0) code = mdb_env_stat(env_, &stat);
  if (code != 0) return LmdbError(code, "stat", path_);
  return (uint64_t{info.me_last_pgno} + 1) * stat.ms_psize;
}

Status LmdbEnv::Error(int code, std::string_view operation) {
  Status status = LmdbError(code, operation, path_);
  starved_ |= status.code() == StatusCode::kResourceExhausted;
  return status;
}

// LMDB reports a write that was cut short as EIO, also where the disk is what cut it short.
Status LmdbEnv::CommitError(int code) {
  if (code == EIO) {
    int fd = -1;
    struct stat file {};
    if (mdb_env_get_fd(env_, &fd) == 0 && ::fstat(fd, &file) == 0) {
      const int probe = ProbeForSpace(path_, file.st_size);
      if (probe == ENOSPC || probe == EDQUOT || probe == EFBIG) code = probe;
    }
  }
  return Error(code, "commit to");
}

LmdbTxn::LmdbTxn(MDB_txn* txn, LmdbEnv* env, bool write) : txn_(txn), env_(env), write_(write) {
  ++env_->open_txns_;
  if (write_) env_->write_open_ = true;
}

LmdbTxn::LmdbTxn(LmdbTxn&& other) noexcept
    : txn_(std::exchange(other.txn_, nullptr)), env_(other.env_), write_(other.write_) {}

LmdbTxn& LmdbTxn::operator=(LmdbTxn&& other) noexcept {
  if (this != &other) {
    Abort();
    txn_ = std::exchange(other.txn_, nullptr);
    env_ = other.env_;
    write_ = other.write_;
  }
  return *this;
}

LmdbTxn::~LmdbTxn() { Abort(); }

void LmdbTxn::Ended() {
  txn_ = nullptr;
  --env_->open_txns_;
  if (write_) env_->write_open_ = false;
}

void LmdbTxn::Abort() {
  if (txn_ == nullptr) return;
  mdb_txn_abort(txn_);
  Ended();
}

Status LmdbTxn::Commit() {
  if (txn_ == nullptr) return InternalError("commit: the transaction has ended");
  const int code = mdb_txn_commit(txn_);  // frees it also where it fails
  Ended();
  return code == 0 ? Status() : env_->CommitError(code);
}

Result<std::optional<Bytes>> LmdbTxn::Get(MDB_dbi db, Bytes key) const {
  MDB_val k = Val(key);
  MDB_val value{};
  const int code = mdb_get(txn_, db, &k, &value);
  if (code == MDB_NOTFOUND) return std::optional<Bytes>();
  if (code != 0) return LmdbError(code, "read", env_->path_);
  return std::optional<Bytes>(FromVal(value));
}

Status LmdbTxn::Put(MDB_dbi db, Bytes key, Bytes value, unsigned flags) {
  MDB_val k = Val(key);
  MDB_val v = Val(value);
  const int code = mdb_put(txn_, db, &k, &v, flags);
  return code == 0 ? Status() : env_->Error(code, "write");
}

Result<std::span<std::byte>> LmdbTxn::PutReserved(MDB_dbi db, Bytes key, size_t bytes) {
  MDB_val k = Val(key);
  MDB_val v{bytes, nullptr};
  const int code = mdb_put(txn_, db, &k, &v, MDB_RESERVE);
  if (code != 0) return env_->Error(code, "write");
  return std::span(static_cast<std::byte*>(v.mv_data), bytes);
}

Result<bool> LmdbTxn::Delete(MDB_dbi db, Bytes key) {
  MDB_val k = Val(key);
  const int code = mdb_del(txn_, db, &k, nullptr);
  if (code == MDB_NOTFOUND) return false;
  if (code != 0) return env_->Error(code, "delete from");
  return true;
}

Status LmdbTxn::Scan(MDB_dbi db, Bytes first,
                     const std::function<bool(Bytes key, Bytes value)>& visit) const {
  MDB_cursor* cursor = nullptr;
  int code = mdb_cursor_open(txn_, db, &cursor);
  if (code != 0) return LmdbError(code, "scan", env_->path_);
  MDB_val key = Val(first);
  MDB_val value{};
  code = mdb_cursor_get(cursor, &key, &value, first.empty() ? MDB_FIRST : MDB_SET_RANGE);
  while (code == 0 && visit(FromVal(key), FromVal(value))) {
    code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  return code == 0 || code == MDB_NOTFOUND ? Status() : LmdbError(code, "scan", env_->path_);
}

Result<std::optional<LmdbTxn::Entry>> LmdbTxn::Before(MDB_dbi db, Bytes key) const {
  MDB_cursor* cursor = nullptr;
  int code = mdb_cursor_open(txn_, db, &cursor);
  if (code != 0) return LmdbError(code, "seek in", env_->path_);
  MDB_val k = Val(key);
  MDB_val value{};
  code = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
  if (code == 0 || code == MDB_NOTFOUND) {
    code = mdb_cursor_get(cursor, &k, &value, code == 0 ? MDB_PREV : MDB_LAST);
  }
  mdb_cursor_close(cursor);
  if (code == MDB_NOTFOUND) return std::optional<Entry>();
  if (code != 0) return LmdbError(code, "seek in", env_->path_);
  return std::optional<Entry>({FromVal(k), FromVal(value)});
}

Status LmdbTxn::Clear(MDB_dbi db) {
  const int code = mdb_drop(txn_, db, 0);
  return code == 0 ? Status() : LmdbError(code, "clear", env_->path_);
}

Result<uint64_t> LmdbTxn::Count(MDB_dbi db) const {
  MDB_stat stat{};
  const int code = mdb_stat(txn_, db, &stat);
  if (code != 0) return LmdbError(code, "stat", env_->path_);
  return uint64_t{stat.ms_entries};
}

}  // namespace thimble
