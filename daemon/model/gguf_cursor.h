// A sequential reader of a part of a file through one buffer: the only way the GGUF code reads
// numbers and strings. Every read is checked against the end of the part first, so that a length
// claimed by the file is never believed before it is known to fit. Called by: gguf_parse.cc,
// gguf.cc. Memory: one buffer of 64 KiB, less for a shorter part.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/file.h"
#include "storage/base/status.h"

namespace thimble {

static_assert(std::endian::native == std::endian::little,
              "GGUF is little-endian, and numbers are copied from it as they are");

class GgufCursor {
 public:
  static constexpr size_t kBufferBytes = size_t{64} * 1024;

  // Reads [begin, end) of `file`, which must outlive the cursor.
  GgufCursor(RandomAccessFile& file, uint64_t begin, uint64_t end)
      : file_(file), end_(end), buffer_begin_(begin) {}

  // From the start of the file.
  [[nodiscard]] uint64_t position() const { return buffer_begin_ + next_; }
  [[nodiscard]] uint64_t remaining() const { return end_ - position(); }

  // Every error below is INVALID_ARGUMENT where the part ends too early, or the file's own error.
  Status Read(void* out, size_t bytes);
  Status Skip(uint64_t bytes);

  // A little-endian number.
  template <typename T>
  Status Read(T* out) {
    return Read(static_cast<void*>(out), sizeof(T));
  }

  // A string: a 64-bit length and as many bytes. Longer than `max_bytes` is an error.
  Status ReadString(uint64_t max_bytes, std::string* out);
  Status SkipString();

 private:
  Status Need(uint64_t bytes) const;
  Status Refill();

  RandomAccessFile& file_;
  const uint64_t end_;
  uint64_t buffer_begin_;          // of buffer_[0], from the start of the file
  size_t next_ = 0;                // in buffer_; at most filled_
  size_t filled_ = 0;              // valid bytes of buffer_
  std::vector<std::byte> buffer_;  // grows to kBufferBytes with the first read
};

// `status`, with "what name: " before its message; OK stays OK. For errors that rise through the
// layers of a file: "key llama.block_count: ...".
Status InContext(std::string_view what, std::string_view name, Status status);

// A key or tensor name as it may stand in a message: printable ASCII, the rest as \xNN, at most 100
// characters. Names come from the file and may be any bytes.
std::string Printable(std::string_view name);

}  // namespace thimble
