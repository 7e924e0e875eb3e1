#include "storage/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

namespace thimble {
namespace {

std::string At(const std::string& path, uint64_t offset) {
  char text[32];
  std::snprintf(text, sizeof text, " at offset 0x%llx", static_cast<unsigned long long>(offset));
  return "read " + path + text;
}

class PosixFile final : public RandomAccessFile {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override { ::close(fd_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n =
          ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, At(path_, offset + done));
      if (n == 0) {
        return OutOfRangeError(At(path_, offset + done) + ": the file ends there, " +
                               std::to_string(out.size() - done) + " bytes short");
      }
      done += static_cast<size_t>(n);
    }
    return {};
  }

  Result<FileIdentity> Identity() override {
    struct stat st {};
    if (::fstat(fd_, &st) != 0) return ErrnoError(errno, "stat " + path_);
    return FileIdentity{
        static_cast<uint64_t>(st.st_dev), static_cast<uint64_t>(st.st_ino),
        static_cast<uint64_t>(st.st_size),
        static_cast<int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec};
  }

  void DropPageCache() override {
    static_cast<void>(::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED));
  }

  [[nodiscard]] int descriptor() const override { return fd_; }
  [[nodiscard]] const std::string& path() const override { return path_; }

 private:
  const int fd_;
  const std::string path_;
};

class BytesFile final : public RandomAccessFile {
 public:
  BytesFile(std::span<const std::byte> bytes, std::string path)
      : bytes_(bytes.begin(), bytes.end()), path_(std::move(path)) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      return OutOfRangeError(At(path_, offset) + ": past the end");
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }
  Result<FileIdentity> Identity() override { return FileIdentity{0, 0, bytes_.size(), 0}; }
  [[nodiscard]] const std::string& path() const override { return path_; }

 private:
  const std::vector<std::byte> bytes_;
  const std::string path_;
};

}  // namespace

Result<std::unique_ptr<RandomAccessFile>> OpenFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, "open " + path);
  auto file = std::make_unique<PosixFile>(fd, path);
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoError(errno, "stat " + path);
  if (!S_ISREG(st.st_mode)) return InvalidArgumentError("open " + path + ": not a regular file");
  return std::unique_ptr<RandomAccessFile>(std::move(file));
}

std::unique_ptr<RandomAccessFile> MemoryFile(std::span<const std::byte> bytes, std::string path) {
  return std::make_unique<BytesFile>(bytes, std::move(path));
}

}  // namespace thimble
