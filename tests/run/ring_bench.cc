// ring_bench FILE [SPANS [ROUNDS]]: MB/s of FILE read from end to end through a ring of so many
// spans of 512 KiB (4), all of it under way but what is in use, page cache dropped before: where
// nobody looks at the bytes, where they are added up, and where they are then evicted from the
// core's caches in the ways that the processor has (cache_eviction.h); beside it, what that costs
// the processor. The rates of each round, then the medians of all.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "daemon/run/arena.h"
#include "daemon/run/cache_eviction.h"
#include "storage/base/bytes.h"
#include "storage/weight_reader.h"

namespace {

using namespace thimble;  // NOLINT(google-build-using-namespace): a program of its own

constexpr unsigned long kRounds = 5;
constexpr uint64_t kSpan = 512 * kKiB;

struct Use {
  const char* name;
  bool add;
  Eviction eviction;
};
constexpr std::array kUses = {
    Use{"not looked at", false, Eviction::kNone}, Use{"added up", true, Eviction::kNone},
    Use{"and demoted", true, Eviction::kDemote}, Use{"and flushed", true, Eviction::kFlush}};

using Clock = std::chrono::steady_clock;

struct Rates {
  std::vector<double> megabytes_per_second;
  std::vector<double> use_us_per_mib;
};

Status ReadThrough(RandomAccessFile& file, uint64_t n_spans, Arena& arena, const Use& use,
                   Rates* rates) {
  const uint64_t n_places = arena.all().size() / kSpan;
  THIMBLE_ASSIGN_OR_RETURN(const auto reader,
                           WeightReader::Open(file, ReaderBackend::kAuto, arena.all()));
  const auto place = [&](uint64_t i) { return arena.all().data() + i % n_places * kSpan; };
  std::vector<uint32_t> tickets(n_places);
  uint64_t started = 0;
  uint64_t sum = 0;
  (void)::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  std::chrono::duration<double> used{};
  const Clock::time_point begin = Clock::now();
  for (uint64_t i = 0; i < n_spans; ++i) {
    for (; started < std::min(i + n_places, n_spans); ++started) {
      THIMBLE_ASSIGN_OR_RETURN(tickets[started % n_places],
                               reader->Start(started * kSpan, kSpan, place(started)));
    }
    THIMBLE_RETURN_IF_ERROR(reader->Wait(tickets[i % n_places]));
    if (!use.add) continue;
    const Clock::time_point arrived = Clock::now();
    const auto* words = reinterpret_cast<const uint64_t*>(place(i));
    for (uint64_t w = 0; w < kSpan / sizeof(uint64_t); ++w) sum += words[w];
    Evict(use.eviction, place(i), kSpan);
    used += Clock::now() - arrived;
  }
  const std::chrono::duration<double> took = Clock::now() - begin;
  volatile uint64_t kept = sum;  // so that it is not left out
  (void)kept;
  const auto bytes = static_cast<double>(n_spans * kSpan);
  rates->megabytes_per_second.push_back(bytes / 1e6 / took.count());
  rates->use_us_per_mib.push_back(used.count() * 1e6 / (bytes / kMiB));
  return {};
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Status Run(const char* path, uint64_t n_places, unsigned long n_rounds) {
  THIMBLE_ASSIGN_OR_RETURN(const auto file, OpenFile(path));
  THIMBLE_ASSIGN_OR_RETURN(const FileIdentity identity, file->Identity());
  const uint64_t n_spans = identity.size_bytes / kSpan;
  if (n_spans == 0) return InvalidArgumentError(std::string(path) + ": less than 512 KiB");
  THIMBLE_ASSIGN_OR_RETURN(const auto arena, Arena::Map(n_places * kSpan));
  std::fill(arena->all().begin(), arena->all().end(), std::byte{1});
  const std::vector<Eviction> here = EvictionsHere();
  std::vector<Use> uses;
  std::copy_if(kUses.begin(), kUses.end(), std::back_inserter(uses), [&here](const Use& use) {
    return std::find(here.begin(), here.end(), use.eviction) != here.end();
  });
  std::vector<Rates> rates(uses.size());
  std::printf("%s, %s, a ring of %s; MB/s\n", path, FormatBytes(identity.size_bytes).c_str(),
              FormatBytes(n_places * kSpan).c_str());
  for (const Use& use : uses) std::printf("%14s", use.name);
  std::printf("\n");
  for (unsigned long round = 0; round < n_rounds; ++round) {
    for (size_t i = 0; i < uses.size(); ++i) {
      THIMBLE_RETURN_IF_ERROR(ReadThrough(*file, n_spans, *arena, uses[i], &rates[i]));
      std::printf("%14.0f", rates[i].megabytes_per_second.back());
    }
    std::printf("\n");
  }
  std::printf("\nmedians\n");
  const double base = Median(rates[0].megabytes_per_second);
  for (size_t i = 0; i < uses.size(); ++i) {
    const double rate = Median(rates[i].megabytes_per_second);
    std::printf("%-14s %8.1f MB/s  x%.2f  %6.1f us a MiB\n", uses[i].name, rate, rate / base,
                Median(rates[i].use_us_per_mib));
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const unsigned long n_places = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 4;
  const unsigned long n_rounds = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : kRounds;
  if (argc < 2 || argc > 4 || n_places < 2 || n_places > WeightReader::kMaxInFlight ||
      n_rounds == 0) {
    std::fprintf(stderr, "usage: ring_bench FILE [SPANS, 2 to %zu [ROUNDS]]\n",
                 size_t{WeightReader::kMaxInFlight});
    return 2;
  }
  const Status status = Run(argv[1], n_places, n_rounds);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
