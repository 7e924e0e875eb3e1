#include "storage/kv_stream.h"

#include <algorithm>
#include <utility>

#include "storage/base/bytes.h"

namespace thimble {

KvStream::KvStream(std::unique_ptr<RandomAccessFile> file, std::unique_ptr<WeightReader> reader,
                   uint64_t layer_bytes, uint64_t buffer_bytes)
    : file_(std::move(file)),
      reader_(std::move(reader)),
      layer_bytes_(layer_bytes),
      buffer_bytes_(buffer_bytes),
      reads_(WeightReader::kMaxInFlight) {}

Result<std::unique_ptr<KvStream>> KvStream::Open(const std::string& path, ReaderBackend backend,
                                                 uint64_t layer_bytes, uint64_t buffer_bytes) {
  THIMBLE_ASSIGN_OR_RETURN(auto file, OpenFile(path));
  THIMBLE_ASSIGN_OR_RETURN(auto reader, WeightReader::Open(*file, backend, {}));
  return std::unique_ptr<KvStream>(
      new KvStream(std::move(file), std::move(reader), layer_bytes, buffer_bytes));
}

KvStream::~KvStream() { Begin({}); }

void KvStream::Forget() {
  while (n_reads_ > 0) DropOldest();
}

void KvStream::Begin(std::span<const std::span<std::byte>> memory) {
  Forget();
  n_buffers_ = 0;
  next_buffer_ = 0;
  for (const std::span<std::byte> part : memory) {
    const auto address = reinterpret_cast<uintptr_t>(part.data());
    std::byte* buffer = part.data() + (AlignUp(address, kReadAlignment) - address);
    for (size_t n = BuffersIn(part.size()); n > 0 && n_buffers_ < kMostBuffers; --n) {
      buffers_[n_buffers_++] = buffer;
      buffer += buffer_bytes_;
    }
  }
}

void KvStream::BeginBatch() {
  batch_ = true;
  reader_->BeginBatch();
}

void KvStream::EndBatch() {
  Submit();
  batch_ = false;
  reader_->EndBatch();
}

void KvStream::Start(const Place& place, uint64_t offset) {
  if (offset % kReadAlignment + layer_bytes_ > buffer_bytes_) return;
  if (!Extend(place, offset)) {
    Submit();
    At(n_reads_++) = {place, 1, offset, next_buffer_, State::kGathering, 0, {}};
  }
  next_buffer_ = (next_buffer_ + 1) % n_buffers_;
  ++n_used_;
  if (!batch_) Submit();
}

bool KvStream::Extend(const Place& place, uint64_t offset) {
  if (n_reads_ == 0) return false;
  Read& read = At(n_reads_ - 1);
  const bool neighbour =
      read.state == State::kGathering && place.sequence == read.first.sequence &&
      place.layer == read.first.layer && place.block == read.first.block + read.n &&
      offset == read.offset + read.n * buffer_bytes_ &&
      (read.n + 1) * buffer_bytes_ <= kMostTogetherBytes && read.n + 1 <= n_buffers_ / 4;
  // The buffers must be neighbours, too.
  if (!neighbour || next_buffer_ == 0 ||
      buffers_[next_buffer_] != buffers_[next_buffer_ - 1] + buffer_bytes_) {
    return false;
  }
  ++read.n;
  return true;
}

void KvStream::Submit() {
  if (n_reads_ == 0 || At(n_reads_ - 1).state != State::kGathering) return;
  Read& read = At(n_reads_ - 1);
  const uint64_t bytes = (read.n - 1) * buffer_bytes_ + layer_bytes_;
  const Result<uint32_t> ticket = reader_->Start(read.offset, bytes, buffers_[read.buffer]);
  if (!ticket.ok()) {
    next_buffer_ = read.buffer;
    n_used_ -= read.n;
    --n_reads_;
    return;
  }
  read.ticket = *ticket;
  read.state = State::kUnderWay;
}

void KvStream::DropOldest() {
  Read& read = At(0);
  // What it was reading is not wanted; its error would be of no interest.
  if (read.state == State::kUnderWay) static_cast<void>(reader_->Wait(read.ticket));
  read.state = State::kOver;
  n_used_ -= read.n;
  oldest_ = (oldest_ + 1) % reads_.size();
  --n_reads_;
}

Result<const std::byte*> KvStream::Take(const Place& place) {
  Submit();
  size_t ahead = 0;
  while (ahead < n_reads_ && !Has(At(ahead), place)) ++ahead;
  if (ahead == n_reads_) return nullptr;
  while (ahead-- > 0) DropOldest();
  Read& read = At(0);
  if (std::exchange(read.state, State::kOver) == State::kUnderWay) {
    read.status = reader_->Wait(read.ticket);
  }
  THIMBLE_RETURN_IF_ERROR(read.status);
  return static_cast<const std::byte*>(buffers_[read.buffer] + read.offset % kReadAlignment +
                                       (place.block - read.first.block) * buffer_bytes_);
}

}  // namespace thimble
