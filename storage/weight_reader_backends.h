// What the weight reader's backends share: spans, tickets, short reads, errors and statistics
// (SpanReader), and how each backend is opened. Private to storage/weight_reader*.cc and its test.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

// A backend moves pieces; everything that makes a span out of pieces is here. A span is read by one
// operation at a time: one piece, and after a short read the rest, until the wanted bytes have
// come.
class SpanReader : public WeightReader {
 public:
  Result<uint32_t> Start(uint64_t offset, uint64_t bytes, std::byte* buffer) final;
  Status Wait(uint32_t ticket) final;
  [[nodiscard]] bool Arrived(uint32_t ticket) const final {
    return !UnderWay(ticket % kMaxInFlight);
  }

 protected:
  // One operation: `bytes` of the file at `offset` to `memory`.
  struct Piece {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    std::byte* memory = nullptr;
  };

  // `alignment`: of the file offsets, lengths and memory that the backend is given; kReadAlignment
  // for O_DIRECT, 1 where the wanted bytes alone are read.
  SpanReader(RandomAccessFile& file, uint64_t alignment) : file_(file), alignment_(alignment) {}

  // Starts the operation of `slot`. 0 or an errno; nothing is under way after an error.
  virtual int Begin(unsigned slot, const Piece& piece) = 0;
  // Blocks until the operation of `slot` is complete: how many bytes it read (0: the end of the
  // file), or the reason alone ("Input/output error"); nothing of `slot` is under way afterwards.
  virtual Result<uint64_t> Finish(unsigned slot, const Piece& piece) = 0;
  // Whether the device has the operation of `slot` still, as far as Poll and Finish have seen.
  [[nodiscard]] virtual bool UnderWay(unsigned /*slot*/) const { return false; }
  // The wanted bytes [offset, offset + bytes) are in the buffer, or never will be.
  virtual void Release(uint64_t /*offset*/, uint64_t /*bytes*/) {}

  [[nodiscard]] RandomAccessFile& file() const { return file_; }

 private:
  struct Span {
    bool active = false;
    uint32_t ticket = 0;
    uint64_t offset = 0;  // as wanted
    uint64_t bytes = 0;
    uint64_t begin = 0;  // aligned outward to alignment_
    uint64_t end = 0;
    uint64_t position = 0;        // in the file: where the operation under way begins
    uint64_t done = 0;            // in the file: everything from begin to here has come
    std::byte* memory = nullptr;  // of begin
  };

  static Piece RestOf(const Span& span);
  Status Complete(unsigned slot, Span& span);

  RandomAccessFile& file_;
  const uint64_t alignment_;
  std::array<Span, kMaxInFlight> spans_;
  // A ticket is generation * kMaxInFlight + slot, modulo 2^32.
  static_assert((kMaxInFlight & (kMaxInFlight - 1)) == 0, "a ticket that wraps keeps its slot");
  uint32_t next_generation_ = 0;
};

// A descriptor of the same file as `fd` with O_DIRECT (through /proc/self/fd), closed at the end.
// One of our own, since O_DIRECT belongs to the open file description that `fd` shares with others.
class DirectDescriptor {
 public:
  DirectDescriptor() = default;
  ~DirectDescriptor();
  DirectDescriptor(const DirectDescriptor&) = delete;
  DirectDescriptor& operator=(const DirectDescriptor&) = delete;
  // The message is the reason alone: "O_DIRECT: Invalid argument".
  Status Open(const RandomAccessFile& file);
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

// Reasons come back as messages without the backend's name: "io_uring_setup: Operation not
// permitted".
Result<std::unique_ptr<WeightReader>> OpenUringReader(RandomAccessFile& file,
                                                      std::span<std::byte> arena);
Result<std::unique_ptr<WeightReader>> OpenAioReader(RandomAccessFile& file);
Result<std::unique_ptr<WeightReader>> OpenDirectReader(RandomAccessFile& file);
// Never refused; a file without a descriptor is read through ReadAt.
Result<std::unique_ptr<WeightReader>> OpenBufferedReader(RandomAccessFile& file);

// strerror without a static buffer.
std::string ErrnoText(int error_number);

}  // namespace thimble
