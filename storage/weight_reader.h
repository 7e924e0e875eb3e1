// The weight reader: brings spans of the model file into RAM past the page cache, the next one
// while the current one is in use. Single-threaded; at most kMaxInFlight reads are under way.
//
// Backends, in the order they are tried (each refusal's reason is kept for the log and the status):
//   io_uring + O_DIRECT, Linux AIO + O_DIRECT, pread + O_DIRECT (no overlap), buffered pread
//   followed by posix_fadvise(DONTNEED) with WILLNEED for the announced next span.
// Called by: the tile ring and the resident set (daemon/run). Memory: none of its own but the
// io_uring rings (about 20 KiB) and 5 KiB of what is under way; destinations are the arena's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/file.h"
#include "storage/base/status.h"

namespace thimble {

enum class ReaderBackend : uint8_t { kAuto, kIoUring, kLinuxAio, kDirectPread, kBufferedPread };
std::string_view ReaderBackendName(
    ReaderBackend backend);  // "io_uring", "aio", "direct", "buffered"
Result<ReaderBackend> ParseReaderBackend(std::string_view text);  // the same and "auto"

// O_DIRECT's alignment of file offset, length and memory.
inline constexpr uint64_t kReadAlignment = 4096;

// Bytes a destination needs for `bytes` at `offset`: the span aligned outward.
constexpr uint64_t ReadBufferBytes(uint64_t offset, uint64_t bytes) {
  const uint64_t begin = offset / kReadAlignment * kReadAlignment;
  const uint64_t end = (offset + bytes + kReadAlignment - 1) / kReadAlignment * kReadAlignment;
  return end - begin;
}

struct ReadStats {
  uint64_t bytes = 0;     // read from the file, alignment included
  uint64_t reads = 0;     // operations
  uint64_t stall_ns = 0;  // spent waiting in Wait
};

class WeightReader {
 public:
  static constexpr unsigned kMaxInFlight = 64;

  // `file` must outlive the reader. kAuto takes the first backend that works (a probe read
  // decides); a backend named explicitly that does not work is an error that says why. `arena` (may
  // be empty) is registered as fixed buffers where io_uring allows it.
  static Result<std::unique_ptr<WeightReader>> Open(RandomAccessFile& file, ReaderBackend backend,
                                                    std::span<std::byte> arena);
  // Waits for the reads that are under way, whose buffers must still be there.
  virtual ~WeightReader() = default;

  // Starts reading [offset, offset + bytes) into `buffer`, which is aligned to kReadAlignment,
  // holds ReadBufferBytes(offset, bytes), and stays untouched until Wait. The wanted bytes begin at
  // buffer + offset % kReadAlignment. Returns a ticket for Wait.
  // RESOURCE_EXHAUSTED where kMaxInFlight are under way; INVALID_ARGUMENT for no bytes, a span past
  // 2^63, a buffer that is not aligned.
  virtual Result<uint32_t> Start(uint64_t offset, uint64_t bytes, std::byte* buffer) = 0;
  // Blocks until that read is complete; in any order, once a ticket. A file that ends before the
  // wanted bytes do is DATA_LOSS ("the file has shrunk"), an I/O error UNAVAILABLE; the message has
  // path, offset and length. Short reads inside the file are continued.
  virtual Status Wait(uint32_t ticket) = 0;
  // Whether the device has nothing to do for that read any more, so that Wait would hardly block:
  // as of the last Poll or Wait, of any read. Poll is one system call and never blocks.
  [[nodiscard]] virtual bool Arrived(uint32_t ticket) const = 0;
  virtual void Poll() {}

  // Between the two, Start may keep reads back: EndBatch hands them to the kernel at once, with one
  // system call and one notice to the device, where the backend can. Wait hands them over, too.
  virtual void BeginBatch() {}
  virtual void EndBatch() {}

  [[nodiscard]] virtual ReaderBackend backend() const = 0;
  // Why earlier backends, or parts of this one, were refused: "io_uring: io_uring_setup: Operation
  // not permitted", "io_uring: buffers not registered: ...". Empty: everything was to be had.
  [[nodiscard]] const std::vector<std::string>& refusals() const { return refusals_; }
  [[nodiscard]] const ReadStats& stats() const { return stats_; }

 protected:
  ReadStats stats_;
  std::vector<std::string> refusals_;
};

}  // namespace thimble
