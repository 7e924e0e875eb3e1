// The seam to the operating system for reading files: everything thimble reads from a model passes
// through RandomAccessFile, so that tests can inject short reads, EIO and files that change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "storage/base/status.h"

namespace thimble {

// What tells one state of a file from another: checked at every pass against the state at start.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t modified_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;

  // Fills `out` from `offset`. A file that ends before is an OUT_OF_RANGE error with the offset.
  virtual Status ReadAt(uint64_t offset, std::span<std::byte> out) = 0;

  // The file as it is now (fstat), not as it was when opened.
  virtual Result<FileIdentity> Identity() = 0;

  // The descriptor for asynchronous reading, or -1 where there is none (memory, faults).
  [[nodiscard]] virtual int descriptor() const { return -1; }

  // Lets the kernel drop what of the file is in its page cache. Advice: nothing fails.
  virtual void DropPageCache() {}

  // The path, for messages.
  [[nodiscard]] virtual const std::string& path() const = 0;
};

// Opens `path` read-only, for buffered pread. Directories and devices are refused.
Result<std::unique_ptr<RandomAccessFile>> OpenFile(const std::string& path);

// A file whose bytes are in memory (it copies `bytes`): tests, fuzzing.
std::unique_ptr<RandomAccessFile> MemoryFile(std::span<const std::byte> bytes,
                                             std::string path = "memory");

}  // namespace thimble
