#include "client/bench_flash.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <span>
#include <utility>

#include "client/bench_stats.h"
#include "client/commands.h"
#include "client/common.h"
#include "client/json_line.h"
#include "daemon/run/arena.h"
#include "storage/base/bytes.h"
#include "storage/base/file.h"
#include "storage/weight_reader.h"

namespace thimble {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kSpanBytes = kMiB;  // the largest tile
constexpr unsigned kSlots = 8;
constexpr uint64_t kMostBytes = 256 * kMiB;
constexpr std::chrono::seconds kLongest{2};
// Slow flash: it is measured for longer, since a throttled group's reads are let through in spurts
// of up to a tenth of a second, and in fewer ways, which make no difference there.
constexpr double kSlowBytesPerSecond = 100e6;
constexpr std::chrono::seconds kLongestSlow{4};
constexpr unsigned kSlowDepth = 4;
constexpr unsigned kRounds = 5;
// A throttled group may read ahead of its rate at first, a tenth of a second's worth: that much is
// read before anything is measured.
constexpr std::chrono::milliseconds kWarmUp{300};

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// With `depth` spans in flight all the time, round and round the file.
Result<double> ReadThrough(WeightReader& reader, uint64_t file_bytes, unsigned depth,
                           std::byte* slots, Clock::duration longest) {
  std::array<uint32_t, kSlots> tickets{};
  const uint64_t spans_of_file = (file_bytes + kSpanBytes - 1) / kSpanBytes;
  const auto offset = [&](uint64_t span) { return span % spans_of_file * kSpanBytes; };
  const auto length = [&](uint64_t span) {
    return std::min(kSpanBytes, file_bytes - offset(span));
  };
  uint64_t started = 0;  // spans
  uint64_t done = 0;
  uint64_t bytes = 0;
  const Clock::time_point begin = Clock::now();
  for (;;) {
    const bool enough = bytes >= kMostBytes || Clock::now() - begin > longest;
    while (!enough && started - done < depth) {
      const size_t slot = started % depth;
      THIMBLE_ASSIGN_OR_RETURN(
          tickets[slot], reader.Start(offset(started), length(started), slots + slot * kSpanBytes));
      ++started;
    }
    if (done == started) break;
    THIMBLE_RETURN_IF_ERROR(reader.Wait(tickets[done % depth]));
    bytes += length(done++);
  }
  return static_cast<double>(bytes) / Seconds(Clock::now() - begin);
}

// How much of the file the page cache holds; all of it where that can't be known.
double CachedPart(int fd, uint64_t file_bytes) {
  const auto length = static_cast<size_t>(file_bytes);
  void* map = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return 1;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> in_core((length + page - 1) / page);
  const int failed = ::mincore(map, length, in_core.data());
  ::munmap(map, length);
  if (failed != 0) return 1;
  const auto held = std::count_if(in_core.begin(), in_core.end(),
                                  [](unsigned char flags) { return (flags & 1U) != 0; });
  return static_cast<double>(held) / static_cast<double>(in_core.size());
}

// Through the page cache, which is emptied of the file before and after. What another process has
// mapped stays there, and would be read at the speed of RAM: then FAILED_PRECONDITION.
Result<double> ReadBuffered(const std::string& path, uint64_t file_bytes, std::byte* buffer,
                            Clock::duration longest) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, "open " + path);
  (void)::fdatasync(fd);  // dirty pages can't be dropped
  (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (CachedPart(fd, file_bytes) > 0.01) {
    ::close(fd);
    return FailedPreconditionError(path +
                                   " is in use by another program and stays in the page cache");
  }
  uint64_t bytes = 0;
  const Clock::time_point begin = Clock::now();
  Clock::time_point end = begin;
  Status status;
  while (bytes < kMostBytes && end - begin < longest) {
    const ssize_t n = ::read(fd, buffer, kSpanBytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = ErrnoError(errno, "read " + path);
      break;
    }
    bytes += static_cast<uint64_t>(n);
    end = Clock::now();
    if (n > 0) continue;
    if (bytes == 0) break;  // it has become empty
    (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)::lseek(fd, 0, SEEK_SET);
  }
  (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
  THIMBLE_RETURN_IF_ERROR(std::move(status));
  if (bytes == 0) return DataLossError("read " + path + ": the file is empty");
  return static_cast<double>(bytes) / Seconds(end - begin);
}

struct Way {
  std::string name;
  std::unique_ptr<WeightReader> reader;  // null: through the page cache
  unsigned depth = 1;
  std::vector<double> rates;
};

// A way that is refused is left out.
void AddWay(RandomAccessFile& file, ReaderBackend backend, unsigned depth,
            std::span<std::byte> arena, std::vector<Way>& ways) {
  Result<std::unique_ptr<WeightReader>> reader = WeightReader::Open(file, backend, arena);
  if (!reader.ok()) return;
  std::string name(ReaderBackendName((*reader)->backend()));
  if (depth > 1) name += ", " + std::to_string(depth) + " in flight";
  ways.push_back(
      {.name = std::move(name), .reader = std::move(*reader), .depth = depth, .rates = {}});
}

}  // namespace

Result<std::vector<FlashRate>> MeasureFlash(const std::string& path, const std::string& only) {
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, OpenFile(path));
  THIMBLE_ASSIGN_OR_RETURN(const FileIdentity identity, file->Identity());
  if (identity.size_bytes == 0) return InvalidArgumentError(path + " is empty");
  // The same kind of memory as the daemon reads into.
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Arena> buffers, Arena::Map(kSlots * kSpanBytes));
  const std::span<std::byte> arena = buffers->all();
  std::vector<Way> ways;
  for (unsigned depth = 2; depth <= kSlots; depth *= 2) {
    AddWay(*file, ReaderBackend::kAuto, depth, arena, ways);
  }
  AddWay(*file, ReaderBackend::kDirectPread, 1, arena, ways);
  ways.push_back({.name = "through the page cache", .reader = nullptr, .depth = 1, .rates = {}});
  Clock::duration longest = kLongest;
  if (ways.front().reader != nullptr) {
    THIMBLE_ASSIGN_OR_RETURN(
        const double first,
        ReadThrough(*ways.front().reader, identity.size_bytes, 1, arena.data(), kWarmUp));
    if (first < kSlowBytesPerSecond) {
      longest = kLongestSlow;
      std::erase_if(ways, [&](const Way& way) {
        return way.name != only && way.depth > 1 && way.depth != kSlowDepth;
      });
    }
  }
  if (!only.empty()) std::erase_if(ways, [&](const Way& way) { return way.name != only; });
  if (ways.empty()) return NotFoundError(path + " cannot be read as \"" + only + "\"");
  const Clock::time_point begin = Clock::now();
  for (unsigned round = 0; round < kRounds; ++round) {
    for (Way& way : ways) {
      const Result<double> rate =
          way.reader == nullptr
              ? ReadBuffered(path, identity.size_bytes, arena.data(), longest)
              : ReadThrough(*way.reader, identity.size_bytes, way.depth, arena.data(), longest);
      if (rate.ok()) {
        way.rates.push_back(*rate);
      } else if (rate.status().code() != StatusCode::kFailedPrecondition) {
        return rate.status();
      }
    }
    if (Clock::now() - begin > kLongest) break;
  }
  std::vector<FlashRate> rates;
  for (const Way& way : ways) {
    if (way.rates.empty()) continue;
    rates.push_back({.method = way.name,
                     .bytes_per_second = SpreadOf(way.rates).median,
                     .rounds = static_cast<unsigned>(way.rates.size())});
  }
  if (rates.empty())
    return FailedPreconditionError(path + " can be read in no way past the page cache");
  std::sort(rates.begin(), rates.end(), [](const FlashRate& a, const FlashRate& b) {
    return a.bytes_per_second > b.bytes_per_second;
  });
  return rates;
}

int RunFlashCommand(const FlashCommand& command) {
  const Result<std::vector<FlashRate>> rates = MeasureFlash(command.file, command.way);
  if (!rates.ok()) {
    PrintError(rates.status(), command.json);
    return kExitFailed;
  }
  if (command.rate_only) {
    const FlashRate& best = rates->front();
    (void)std::printf("%.0f %s\n", best.bytes_per_second, best.method.c_str());
    return kExitOk;
  }
  for (const FlashRate& rate : *rates) {
    if (command.json) {
      const std::string line = JsonLine()
                                   .Add("method", rate.method)
                                   .Add("bytes_per_second", rate.bytes_per_second)
                                   .Add("rounds", rate.rounds)
                                   .str();
      (void)std::printf("%s\n", line.c_str());
    } else {
      (void)std::printf("%-24s %8.1f MB/s, the median of %u\n", rate.method.c_str(),
                        rate.bytes_per_second / 1e6, rate.rounds);
    }
  }
  return kExitOk;
}

}  // namespace thimble
