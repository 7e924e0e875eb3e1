#include "storage/kv_stream.h"

#include <algorithm>
#include <utility>

#include "storage/base/bytes.h"

namespace thimble {

KvStream::KvStream(std::unique_ptr<RandomAccessFile> file, std::unique_ptr<WeightReader> reader,
                   uint64_t layer_bytes)
    : file_(std::move(file)),
      reader_(std::move(reader)),
      layer_bytes_(layer_bytes),
      // Wherever in a page it begins.
      buffer_bytes_(AlignUp(layer_bytes, kReadAlignment) + kReadAlignment),
      reads_(kMostBuffers) {}

Result<std::unique_ptr<KvStream>> KvStream::Open(const std::string& path, ReaderBackend backend,
                                                 uint64_t layer_bytes) {
  THIMBLE_ASSIGN_OR_RETURN(auto file, OpenFile(path));
  THIMBLE_ASSIGN_OR_RETURN(auto reader, WeightReader::Open(*file, backend, {}));
  return std::unique_ptr<KvStream>(new KvStream(std::move(file), std::move(reader), layer_bytes));
}

KvStream::~KvStream() { Begin({}); }

void KvStream::Forget() {
  while (n_reads_ > 0) DropOldest();
}

void KvStream::Begin(std::span<const std::span<std::byte>> memory) {
  Forget();
  n_buffers_ = 0;
  oldest_ = 0;
  for (const std::span<std::byte> part : memory) {
    const auto address = reinterpret_cast<uintptr_t>(part.data());
    std::byte* buffer = part.data() + (AlignUp(address, kReadAlignment) - address);
    for (size_t n = BuffersIn(part.size()); n > 0 && n_buffers_ < kMostBuffers; --n) {
      buffers_[n_buffers_++] = buffer;
      buffer += buffer_bytes_;
    }
  }
}

std::byte* KvStream::Buffer(const Read& read) const {
  return buffers_[static_cast<size_t>(&read - reads_.data())];
}

void KvStream::Start(const Place& place, uint64_t offset) {
  Read& read = reads_[(oldest_ + n_reads_) % n_buffers_];
  const Result<uint32_t> ticket = reader_->Start(offset, layer_bytes_, Buffer(read));
  if (!ticket.ok()) return;
  read = {place, offset, *ticket, true, {}};
  ++n_reads_;
}

void KvStream::DropOldest() {
  Read& read = reads_[oldest_];
  // What it was reading is not wanted; its error would be of no interest.
  if (read.pending) static_cast<void>(reader_->Wait(read.ticket));
  read.pending = false;
  oldest_ = (oldest_ + 1) % n_buffers_;
  --n_reads_;
}

Result<const std::byte*> KvStream::Take(const Place& place) {
  size_t ahead = 0;
  while (ahead < n_reads_ && reads_[(oldest_ + ahead) % n_buffers_].place != place) ++ahead;
  if (ahead == n_reads_) return nullptr;
  while (ahead-- > 0) DropOldest();
  Read& read = reads_[oldest_];
  if (std::exchange(read.pending, false)) read.status = reader_->Wait(read.ticket);
  THIMBLE_RETURN_IF_ERROR(read.status);
  return static_cast<const std::byte*>(Buffer(read) + read.offset % kReadAlignment);
}

}  // namespace thimble
