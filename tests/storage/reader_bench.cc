// reader_bench FILE: MB/s of every backend of the weight reader over FILE, read once from end to
// end with one span ahead (as the tile ring reads), page cache dropped before; beside it, in the
// same run, a plain loop of O_DIRECT pread with the same spans. The ratio is what the machinery
// costs or gains. Then, through a ring of four spans with three under way, what it costs that the
// bytes are looked at, and what moving them out of the core's caches gains (cache_demotion.h).
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

#include "daemon/run/arena.h"
#include "daemon/run/cache_demotion.h"
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

enum class Use { kNone, kAdd, kAddAndDemote };

// Negative: refused.
double Ring(RandomAccessFile& file, uint64_t file_bytes, uint64_t span, std::span<std::byte> ring,
            Use use) {
  Result<std::unique_ptr<WeightReader>> reader =
      WeightReader::Open(file, ReaderBackend::kAuto, ring);
  if (!reader.ok()) return -1;
  const uint64_t n_spans = file_bytes / span;
  const uint64_t places = ring.size() / span;
  const auto place = [&](uint64_t i) { return ring.data() + i % places * span; };
  std::array<uint32_t, WeightReader::kMaxInFlight> tickets{};
  uint64_t started = 0;
  uint64_t sum = 0;
  DropCache(file.descriptor());
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < n_spans; ++i) {
    for (; started < std::min(i + places, n_spans); ++started) {
      const Result<uint32_t> ticket = (*reader)->Start(started * span, span, place(started));
      if (!ticket.ok()) return -1;
      tickets[started % places] = *ticket;
    }
    if (!(*reader)->Wait(tickets[i % places]).ok()) return -1;
    if (use == Use::kNone) continue;
    const auto* words = reinterpret_cast<const uint64_t*>(place(i));
    for (uint64_t w = 0; w < span / sizeof(uint64_t); ++w) sum += words[w];
    if (use == Use::kAddAndDemote) Demote(place(i), span);
  }
  const double rate = MegabytesPerSecond(n_spans * span, begin);
  return sum == 1 ? -1 : rate;  // so that it is not left out
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
  constexpr uint64_t kSpan = 512 * kKiB;
  const Result<std::unique_ptr<Arena>> arena = Arena::Map(4 * kSpan);  // a huge page
  if (!arena.ok()) return 1;
  std::fill((*arena)->all().begin(), (*arena)->all().end(), std::byte{1});
  const std::array<const char*, 3> names = {"not looked at", "added up", "and moved"};
  std::array<std::vector<double>, 3> rates;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t use = 0; use < rates.size(); ++use) {
      rates[use].push_back(
          Ring(**file, identity->size_bytes, kSpan, (*arena)->all(), static_cast<Use>(use)));
    }
  }
  for (size_t use = 0; use < rates.size(); ++use) {
    const double rate = Median(rates[use]);
    std::printf("%-8s  %-14s %8.1f MB/s  x%.2f\n", use == 0 ? "ring" : "", names[use], rate,
                rate / Median(rates[0]));
  }
  if (!DemotionHelps(4 * kSpan)) std::printf("this processor does not move them\n");
  return 0;
}
