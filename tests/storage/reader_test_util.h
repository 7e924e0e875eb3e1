// For the weight reader's tests: a file on a disk whose every byte is known, and memory to read
// into.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "storage/base/bytes.h"
#include "storage/base/file.h"
#include "storage/weight_reader.h"

namespace thimble {

// A byte that depends on all of its offset.
inline std::byte ByteAt(uint64_t offset) {
  return static_cast<std::byte>((offset * 0x9E3779B97F4A7C15ULL) >> 56);
}

// Page-aligned memory, filled so that a read that brings nothing is seen.
class Buffer {
 public:
  explicit Buffer(size_t bytes)
      : bytes_(AlignUp(bytes, kReadAlignment)),
        data_(static_cast<std::byte*>(std::aligned_alloc(kReadAlignment, bytes_))) {
    std::memset(data_, 0xA5, bytes_);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  size_t bytes_;
  std::byte* data_;
};

// A file in $TMPDIR or /var/tmp, gone at the end. (/tmp is often a tmpfs, which has no O_DIRECT
// before Linux 6.6.)
class DiskFile {
 public:
  explicit DiskFile(uint64_t bytes) {
    const char* directory = std::getenv("TMPDIR");
    std::string name =
        std::string(directory != nullptr ? directory : "/var/tmp") + "/thimble_XXXXXX";
    fd_ = ::mkstemp(name.data());
    path_ = name;
    EXPECT_GE(fd_, 0) << path_;
    std::vector<std::byte> block(kMiB);
    for (uint64_t offset = 0; offset < bytes; offset += block.size()) {
      const uint64_t n = std::min<uint64_t>(block.size(), bytes - offset);
      for (uint64_t i = 0; i < n; ++i) block[i] = ByteAt(offset + i);
      EXPECT_EQ(::write(fd_, block.data(), n), static_cast<ssize_t>(n));
    }
    EXPECT_EQ(::fsync(fd_), 0);
    DropCache();
    Result<std::unique_ptr<RandomAccessFile>> file = OpenFile(path_);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    file_ = std::move(file).value();
  }
  ~DiskFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;

  void DropCache() const { ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED); }
  void Truncate(uint64_t bytes) const {
    ASSERT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0);
    ASSERT_EQ(::fsync(fd_), 0);
  }
  [[nodiscard]] RandomAccessFile& file() const { return *file_; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
  std::string path_;
  std::unique_ptr<RandomAccessFile> file_;
};

inline bool HasBytes(const std::byte* data, uint64_t offset, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; ++i) {
    if (data[i] != ByteAt(offset + i)) return false;
  }
  return true;
}

}  // namespace thimble
