// Used bytes of the ring, evicted from this core's caches. A virtual disk is a thread of another
// core that copies the next tile over them: each line that caches here still hold has to be taken
// from them first. What that costs has two levels, between which it changes every few seconds, as
// if the host moved that thread near and far. Reads of 512 KiB into a ring of 4 MiB on Zen 4, as a
// part of what they make where nobody looks at the bytes (ring_bench, medians of 100 rounds):
//   far     added up 0.66, then flushed 0.91
//   near    added up 1.06, then flushed 0.97
// and on a Xeon with 2 MiB of second-level cache, into a ring as large, added up 0.6, then demoted
// 0.85. The processor pays 25 to 60 us a MiB. So no way is right for long: while the flash is
// waited for, those that there are get tried in turn, and the best is used until the next trial.
// CLFLUSHOPT: AMD's Architecture Programmer's Manual, volume 3; Intel's Software Developer's
// Manual, volume 2A, which has CLDEMOTE, too (from Sapphire Rapids and Tremont on). On other
// architectures nothing is done. Called by: TileRing. Memory: 150 bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "storage/base/bytes.h"

namespace thimble {

// In the order of what they cost the processor.
enum class Eviction : uint8_t {
  kNone,
  kDemote,  // to the cache that cores share
  kFlush,   // to memory
};

// What this processor can: kNone, and those that it has instructions for.
std::vector<Eviction> EvictionsHere();
// Of the lines that hold [begin, begin + bytes); `way` is one that the processor can. No byte
// changes.
void Evict(Eviction way, const std::byte* begin, size_t bytes);

// Which way used bytes go. Time is divided into windows in which at least as many bytes are used as
// the ring holds: so long it takes until all of what is read was evicted in another way before.
//
//   best_ ... best_ | trial: challenger_, 1 window for the change, kMeasured | best_ ...
class EvictionTrials {
 public:
  // ways: kNone, then what else is to be tried.
  EvictionTrials(std::vector<Eviction> ways, uint64_t ring_bytes)
      : ways_(std::move(ways)), least_bytes_(std::max(ring_bytes, kLeastWindow)) {}

  // Windows wait for the flash for so many percent of their time, on average, or nothing is evicted
  // nor tried; the lower number holds once that has begun, for evicting takes from the waiting.
  static constexpr double kBeginPercent = 25;
  static constexpr double kEndPercent = 10;
  // Windows between two trials: few before the first one and after one that changed the way, twice
  // as many with each that did not. One begins at once where bytes take this much longer, all of a
  // sudden, than they did.
  static constexpr uint32_t kFewestBetween = 8;
  static constexpr uint32_t kMostBetween = 256;
  static constexpr double kSudden = 1.3;
  static constexpr uint32_t kMeasured = 4;
  static constexpr uint64_t kLeastWindow = 4 * kMiB;
  // A way that costs the processor more has to be faster by this; one that costs less may be slower
  // by it.
  static constexpr double kWorthIt = 1.12;

  // So many bytes of the ring have been used. True at the end of a window, of which EndWindow has
  // to be told: the steady clock, and what has been waited for the flash so far.
  bool Used(uint64_t bytes);
  void EndWindow(uint64_t now_ns, uint64_t stall_ns);
  // The way of bytes used from now on.
  [[nodiscard]] Eviction way() const { return way_; }

 private:
  void Count(double used, double took_ns);
  void BeginTrial();
  void EndTrial();

  const std::vector<Eviction> ways_;
  const uint64_t least_bytes_;
  uint64_t window_bytes_ = 0;
  uint64_t now_ns_ = 0;
  uint64_t stall_ns_ = 0;
  double waited_percent_ = 0;  // of recent windows
  bool active_ = false;
  Eviction way_ = Eviction::kNone;
  Eviction best_ = Eviction::kNone;
  double best_ns_ = 0;          // a byte, of the last few windows
  double usual_ns_ = 0;         // and of many
  size_t challenger_ = 0;       // of ways_
  uint32_t trial_windows_ = 0;  // 0: there is none
  double trial_used_ = 0;       // bytes of those measured, and their time
  double trial_ns_ = 0;
  uint32_t between_ = kFewestBetween;
  uint32_t until_trial_ = kFewestBetween;
};

}  // namespace thimble
