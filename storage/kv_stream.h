// Blocks of keys and values that have no place in RAM, on their way from flash: read past the page
// cache some blocks ahead of attention, in the order in which it asks for them. Through LMDB's map
// each 4 KiB would be waited for, and a group that is full would have to throw a page out for it:
// measured with eight requests of SmolLM2-135M's shape at 24 MiB, 20 MB a pass at 0.13 GB/s.
//
// A block that an open sequence uses is neither moved nor freed by LMDB, so that its bytes may be
// read from the file without a transaction. Called by: KvCache. Memory: what Begin is given, and 5
// KiB of what is under way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

class KvStream {
 public:
  // One layer of one block of a sequence.
  struct Place {
    uint64_t sequence = 0;
    uint32_t layer = 0;
    uint32_t block = 0;
    friend bool operator==(const Place&, const Place&) = default;
  };

  // Reads the file `path` of LMDB; `layer_bytes` at a time.
  static Result<std::unique_ptr<KvStream>> Open(const std::string& path, ReaderBackend backend,
                                                uint64_t layer_bytes);
  ~KvStream();
  KvStream(const KvStream&) = delete;
  KvStream& operator=(const KvStream&) = delete;

  // Waits for what is under way and forgets it.
  void Forget();

  static constexpr size_t kMostBuffers = WeightReader::kMaxInFlight;

  // Forgets what was asked for, waiting for reads that are under way, and reads into these from
  // now on. None: nothing is read.
  void Begin(std::span<const std::span<std::byte>> memory);
  // The blocks that so much memory, a part of what Begin is given, holds.
  [[nodiscard]] size_t BuffersIn(uint64_t bytes) const {
    return bytes <= kReadAlignment ? 0
                                   : static_cast<size_t>((bytes - kReadAlignment) / buffer_bytes_);
  }
  // Whether there is memory for reading ahead: a block in use and one under way.
  [[nodiscard]] bool active() const { return n_buffers_ >= 2; }
  // Blocks that can be started, and that there are buffers for.
  [[nodiscard]] size_t room() const { return n_buffers_ - n_reads_; }
  [[nodiscard]] size_t buffers() const { return n_buffers_; }

  // What is started between the two goes to the device at once.
  void BeginBatch() { reader_->BeginBatch(); }
  void EndBatch() { reader_->EndBatch(); }
  // Starts reading the block at `offset` of the file. There must be room(). What cannot be started
  // is not there when asked for.
  void Start(const Place& place, uint64_t offset);
  // The bytes of a block that was started, valid until the next Take of another one; nullptr for
  // one that was not. Blocks that were started before it and not taken are forgotten.
  // Errors: the reader's.
  Result<const std::byte*> Take(const Place& place);

  [[nodiscard]] const ReadStats& stats() const { return reader_->stats(); }

 private:
  struct Read {
    Place place;
    uint64_t offset = 0;
    uint32_t ticket = 0;
    bool pending = false;
    Status status;
  };

  KvStream(std::unique_ptr<RandomAccessFile> file, std::unique_ptr<WeightReader> reader,
           uint64_t layer_bytes);
  [[nodiscard]] std::byte* Buffer(const Read& read) const;
  void DropOldest();

  const std::unique_ptr<RandomAccessFile> file_;
  const std::unique_ptr<WeightReader> reader_;
  const uint64_t layer_bytes_;
  const uint64_t buffer_bytes_;
  std::array<std::byte*, kMostBuffers> buffers_{};
  size_t n_buffers_ = 0;
  std::vector<Read> reads_;  // a ring of n_buffers_; the oldest is the one in use
  size_t oldest_ = 0;
  size_t n_reads_ = 0;
};

}  // namespace thimble
