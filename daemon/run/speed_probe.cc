#include "daemon/run/speed_probe.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <vector>

#include "daemon/run/arena.h"
#include "daemon/run/kernels.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// As the ring of weights: four under way, in memory of the same kind. 2 MiB are what a huge page
// takes; with half of that the probe read into small pages, at a third of the speed that passes
// have.
constexpr uint64_t kReadBytes = 512 * kKiB;
constexpr size_t kReads = 4;
constexpr uint64_t kMostBytes = 8 * kMiB;
constexpr double kMostReadSeconds = 0.2;
constexpr double kMostComputeSeconds = 0.01;
constexpr uint32_t kSeveralRows = 8;

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// Reads [begin, end) of the file into the buffer's kReads places, by turns.
Result<double> ProbeFlash(WeightReader& reader, uint64_t begin, uint64_t end, std::byte* buffer) {
  struct Read {
    uint32_t ticket = 0;
    uint64_t bytes = 0;
  };
  std::array<Read, kReads> reads;
  const auto start = [&](size_t i) -> Status {
    reads[i].bytes = std::min(kReadBytes, end - begin);
    if (reads[i].bytes == 0) return {};
    THIMBLE_ASSIGN_OR_RETURN(reads[i].ticket,
                             reader.Start(begin, reads[i].bytes, buffer + i * kReadBytes));
    begin += reads[i].bytes;
    return {};
  };
  const auto since = std::chrono::steady_clock::now();
  for (size_t i = 0; i < kReads; ++i) THIMBLE_RETURN_IF_ERROR(start(i));
  uint64_t done = 0;
  for (size_t i = 0; reads[i].bytes > 0; i = (i + 1) % kReads) {
    THIMBLE_RETURN_IF_ERROR(reader.Wait(reads[i].ticket));
    done += reads[i].bytes;
    if (Seconds(since) > kMostReadSeconds) end = begin;
    THIMBLE_RETURN_IF_ERROR(start(i));
  }
  return static_cast<double>(done) / std::max(Seconds(since), 1e-9);
}

// Of `n` rows at once, their weights' bytes each; with as many fewer outputs, so that a product
// takes no longer than with one row.
double ProbeProcessor(const TensorInfo& tensor, const std::byte* weights, uint64_t bytes,
                      uint32_t n) {
  const uint64_t row_bytes = RowBytes(tensor.type, tensor.columns);
  const uint64_t rows = std::min(tensor.rows, bytes / row_bytes) / n;
  if (rows == 0) return 0;
  const ActivationForm form = FormFor(tensor.type);
  const size_t prepared_bytes = PreparedRowBytes(form, tensor.columns);
  const std::vector<float> x(tensor.columns, 1.0F);
  std::vector<std::byte> prepared(n * prepared_bytes + 64);
  void* aligned = prepared.data();
  size_t space = prepared.size();
  std::align(64, n * prepared_bytes, aligned, space);
  for (uint32_t i = 0; i < n; ++i) {
    PrepareRow(form, x.data(), tensor.columns,
               static_cast<std::byte*>(aligned) + i * prepared_bytes);
  }
  std::vector<float> y(n * rows);
  const auto since = std::chrono::steady_clock::now();
  uint64_t done = 0;
  do {
    MatMul(tensor.type, weights, rows, tensor.columns, aligned, prepared_bytes, n, y.data(), rows);
    done += n * rows * row_bytes;
  } while (Seconds(since) < kMostComputeSeconds);
  return static_cast<double>(done) / std::max(Seconds(since), 1e-9);
}

}  // namespace

Result<Speeds> ProbeSpeed(RandomAccessFile& file, ReaderBackend backend, const Model& model) {
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Arena> arena, Arena::Map(kReads * kReadBytes));
  std::byte* const buffer = arena->all().data();
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<WeightReader> reader,
                           WeightReader::Open(file, backend, arena->all()));
  Speeds speeds;
  // Whole pages of the weights' part of the file: its end may lie anywhere.
  const uint64_t begin = AlignUp(model.gguf.data_offset, kReadAlignment);
  const uint64_t end = AlignDown(model.gguf.file_bytes, kReadAlignment);
  if (begin < end) {
    THIMBLE_ASSIGN_OR_RETURN(speeds.flash_bytes_per_second,
                             ProbeFlash(*reader, begin, std::min(end, begin + kMostBytes), buffer));
  }
  // A layer's largest matrix; one read of it.
  const TensorInfo& tensor = *model.layers[model.n_layers / 2].ffn_up.tensor;
  const uint64_t most = kReads * kReadBytes - kReadAlignment;
  const uint64_t bytes = std::min<uint64_t>(tensor.bytes, most);
  THIMBLE_ASSIGN_OR_RETURN(const uint32_t ticket, reader->Start(tensor.offset, bytes, buffer));
  THIMBLE_RETURN_IF_ERROR(reader->Wait(ticket));
  const std::byte* weights = buffer + tensor.offset % kReadAlignment;
  speeds.processor_bytes_per_second = ProbeProcessor(tensor, weights, bytes, 1);
  speeds.processor_row_bytes_per_second = ProbeProcessor(tensor, weights, bytes, kSeveralRows);
  return speeds;
}

}  // namespace thimble
