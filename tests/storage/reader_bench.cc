// reader_bench FILE: MB/s of every backend of the weight reader over FILE, read once from end to
// end with one span ahead (as the tile ring reads), page cache dropped before; beside it, in the
// same run, a plain loop of O_DIRECT pread with the same spans. The ratio is what the machinery
// costs or gains.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "storage/base/bytes.h"
#include "storage/weight_reader.h"

namespace {

using namespace thimble;  // NOLINT(google-build-using-namespace): a program of its own

constexpr int kRounds = 5;

double MegabytesPerSecond(uint64_t bytes, std::chrono::steady_clock::time_point begin) {
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(bytes) / 1e6 / seconds.count();
}

void DropCache(int fd) { (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

// Negative: refused.
double PlainDirect(const std::string& path, uint64_t span, std::byte* buffer) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) return -1;
  DropCache(fd);
  const auto begin = std::chrono::steady_clock::now();
  uint64_t bytes = 0;
  ssize_t n = 0;
  while ((n = ::pread(fd, buffer, span, static_cast<off_t>(bytes))) > 0) {
    bytes += static_cast<uint64_t>(n);
  }
  const double rate = MegabytesPerSecond(bytes, begin);
  ::close(fd);
  return n < 0 ? -1 : rate;
}

double Reader(RandomAccessFile& file, uint64_t file_bytes, ReaderBackend backend, uint64_t span,
              std::span<std::byte> arena, std::string* why) {
  Result<std::unique_ptr<WeightReader>> reader = WeightReader::Open(file, backend, arena);
  if (!reader.ok()) {
    *why = reader.status().message();
    return -1;
  }
  DropCache(file.descriptor());
  const auto begin = std::chrono::steady_clock::now();
  Result<uint32_t> ahead = (*reader)->Start(0, std::min(span, file_bytes), arena.data());
  for (uint64_t offset = 0, i = 1; offset < file_bytes; offset += span, ++i) {
    if (!ahead.ok()) {
      *why = ahead.status().message();
      return -1;
    }
    const uint32_t ticket = *ahead;
    if (const uint64_t next = offset + span; next < file_bytes) {
      ahead =
          (*reader)->Start(next, std::min(span, file_bytes - next), arena.data() + i % 2 * span);
    }
    if (const Status status = (*reader)->Wait(ticket); !status.ok()) {
      *why = status.message();
      return -1;
    }
  }
  return MegabytesPerSecond(file_bytes, begin);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: reader_bench FILE\n");
    return 2;
  }
  Result<std::unique_ptr<RandomAccessFile>> file = OpenFile(argv[1]);
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().ToString().c_str());
    return 1;
  }
  const Result<FileIdentity> identity = (*file)->Identity();
  if (!identity.ok() || identity->size_bytes == 0) {
    std::fprintf(stderr, "%s: empty\n", argv[1]);
    return 1;
  }
  std::printf("%s, %s, median of %d rounds\n", argv[1], FormatBytes(identity->size_bytes).c_str(),
              kRounds);
  for (const uint64_t span : {256 * kKiB, kMiB}) {
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(kReadAlignment, 2 * span));
    if (memory == nullptr) return 1;
    const std::array backends = {ReaderBackend::kIoUring, ReaderBackend::kLinuxAio,
                                 ReaderBackend::kDirectPread, ReaderBackend::kBufferedPread};
    // Rounds interleave the backends, so that a device that changes its mind changes it for all.
    std::vector<double> plain;
    std::array<std::vector<double>, 4> rates;
    std::array<std::string, 4> why;
    for (int round = 0; round < kRounds; ++round) {
      plain.push_back(PlainDirect(argv[1], span, memory));
      for (size_t i = 0; i < backends.size(); ++i) {
        const std::span<std::byte> buffer(memory, static_cast<size_t>(2 * span));
        rates[i].push_back(
            Reader(**file, identity->size_bytes, backends[i], span, buffer, &why[i]));
      }
    }
    const double base = Median(plain);
    std::printf("%-8s  %-14s %8.1f MB/s\n", FormatBytes(span).c_str(), "plain O_DIRECT", base);
    for (size_t i = 0; i < backends.size(); ++i) {
      const std::string name(ReaderBackendName(backends[i]));
      if (!why[i].empty()) {
        std::printf("%-8s  %-14s refused: %s\n", "", name.c_str(), why[i].c_str());
        continue;
      }
      const double rate = Median(rates[i]);
      std::printf("%-8s  %-14s %8.1f MB/s  x%.2f\n", "", name.c_str(), rate, rate / base);
    }
    std::free(memory);
  }
  return 0;
}
