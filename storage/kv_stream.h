// Blocks of keys and values that have no place in RAM, on their way from flash: read past the page
// cache some blocks ahead of attention, in the order in which it asks for them. Through LMDB's map
// each 4 KiB would be waited for, and a group that is full would have to throw a page out for it:
// measured with eight requests of SmolLM2-135M's shape at 24 MiB, 20 MB a pass at 0.13 GB/s. Blocks
// of a layer that follow one another in the file, too, come with one read.
//
// A block that an open sequence uses is neither moved nor freed by LMDB, so that its bytes may be
// read from the file without a transaction. Called by: KvCache. Memory: what Begin is given, and 10
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

  // Reads the file `path` of LMDB, `layer_bytes` at a time, into buffers of `buffer_bytes`
  // (KvLayerFileBytes).
  static Result<std::unique_ptr<KvStream>> Open(const std::string& path, ReaderBackend backend,
                                                uint64_t layer_bytes, uint64_t buffer_bytes);
  ~KvStream();
  KvStream(const KvStream&) = delete;
  KvStream& operator=(const KvStream&) = delete;

  // Waits for what is under way and forgets it.
  void Forget();

  static constexpr size_t kMostBuffers = 256;
  // As many as are of use: a read each where neighbours are too large to be read together.
  [[nodiscard]] size_t MostBuffers() const {
    return 2 * buffer_bytes_ <= kMostTogetherBytes ? kMostBuffers : reads_.size();
  }

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
  [[nodiscard]] size_t room() const { return n_reads_ == reads_.size() ? 0 : n_buffers_ - n_used_; }
  [[nodiscard]] size_t buffers() const { return n_buffers_; }
  // Whether it is time to start others: half of them at once, for a notice to the device costs as
  // much as the rest of a read.
  [[nodiscard]] bool HalfFree() const {
    return n_used_ <= n_buffers_ / 2 && n_reads_ <= reads_.size() / 2;
  }

  // What is started between the two goes to the device at once, and neighbours as one read.
  void BeginBatch();
  void EndBatch();
  // Starts reading the block at `offset` of the file. There must be room(). What cannot be started
  // is not there when asked for.
  void Start(const Place& place, uint64_t offset);
  // The bytes of a block that was started, valid until the next Take of another one; nullptr for
  // one that was not. Blocks that were started before it and not taken are forgotten.
  // Errors: the reader's.
  Result<const std::byte*> Take(const Place& place);

  [[nodiscard]] const ReadStats& stats() const { return reader_->stats(); }

 private:
  // The most that neighbours are read together: past this, reads get no faster. And a quarter of
  // the buffers, for they are free again together.
  static constexpr uint64_t kMostTogetherBytes = uint64_t{256} << 10;
  enum class State : uint8_t { kGathering, kUnderWay, kOver };
  // Blocks [first.block, first.block + n) of one layer of a sequence, in as many buffers.
  struct Read {
    Place first;
    size_t n = 0;
    uint64_t offset = 0;  // of the first one; the next ones lie buffer_bytes_ behind one another
    size_t buffer = 0;
    State state = State::kOver;
    uint32_t ticket = 0;
    Status status;
  };

  KvStream(std::unique_ptr<RandomAccessFile> file, std::unique_ptr<WeightReader> reader,
           uint64_t layer_bytes, uint64_t buffer_bytes);
  [[nodiscard]] Read& At(size_t i) { return reads_[(oldest_ + i) % reads_.size()]; }
  [[nodiscard]] static bool Has(const Read& read, const Place& place) {
    return place.sequence == read.first.sequence && place.layer == read.first.layer &&
           place.block >= read.first.block && place.block - read.first.block < read.n;
  }
  // Adds the block to the read that is being gathered, if it is its neighbour.
  bool Extend(const Place& place, uint64_t offset);
  // Starts the read that is being gathered, if there is one.
  void Submit();
  void DropOldest();

  const std::unique_ptr<RandomAccessFile> file_;
  const std::unique_ptr<WeightReader> reader_;
  const uint64_t layer_bytes_;
  const uint64_t buffer_bytes_;
  std::array<std::byte*, kMostBuffers> buffers_{};
  size_t n_buffers_ = 0;
  std::vector<Read> reads_;  // a ring; the oldest is the one in use, the newest may be gathering
  size_t oldest_ = 0;
  size_t n_reads_ = 0;
  size_t n_used_ = 0;       // buffers: those of the reads, which follow one another
  size_t next_buffer_ = 0;  // behind them
  bool batch_ = false;
};

}  // namespace thimble
