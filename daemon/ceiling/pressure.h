// How close the group is to its limit, and what the arena should give up so that the kernel need
// not kill: the reserve (budget.h) covers what thimble itself needs, not what others in the group
// do (a shell in the container, a health check, a sidecar in the pod). It is asked in every turn of
// the event loop in which the arena can change, idle every IdlePeriod(): who takes all that is left
// in less is not met by it. Called by: the engine. Memory: some strings.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "daemon/ceiling/cgroup_fs.h"

namespace thimble {

class PressureGauge {
 public:
  using Clock = std::chrono::steady_clock;

  // What should be free, or what the kernel can take back at once: page cache, caches of its own.
  // Not page cache that is mapped, as shared libraries are, for what is in use comes back; nor what
  // is still to be written: with v1 who needs a page then sleeps up to 100 ms
  // (VMSCAN_THROTTLE_WRITEBACK), the event loop, too. Nor what the arena may still take.
  static constexpr uint64_t kLeastLeft = uint64_t{1} << 20;
  // And so much more for each active request, up to a most, where the arena has any of its spare:
  // what thimble itself takes for a moment when they write a block of keys and values each.
  static constexpr uint64_t kLeftPerRequest = uint64_t{256} << 10;
  static constexpr uint64_t kMostLeftForRequests = uint64_t{3} << 19;
  // The arena is given up and taken back in pieces of this size.
  static constexpr uint64_t kUnit = uint64_t{256} << 10;
  // How much more than that must be left once a unit that is taken back is filled, and for
  // how long before: twice as long after each time that it was too early.
  static constexpr uint64_t kEnoughLeft = uint64_t{256} << 10;
  static constexpr std::chrono::milliseconds kCalm{200};
  static constexpr std::chrono::milliseconds kMostCalm{300'000};
  // Then a unit in this time is taken back.
  static constexpr std::chrono::milliseconds kBackPeriod{50};
  // Between two looks at the kernel's numbers: while there is more than enough by kFar, while there
  // is enough, and else; in any case so many times what a look takes. That is what the last one
  // took, but at most twice what the one before it did, of the first one kQuickLook: in a full
  // group the kernel makes who opens a file sleep for 100 ms now and then, and the next look must
  // not come 5 s after that one.
  static constexpr uint64_t kFar = uint64_t{2} << 20;
  static constexpr std::chrono::milliseconds kPeriod{20};
  static constexpr std::chrono::milliseconds kNearPeriod{5};
  static constexpr std::chrono::milliseconds kShortPeriod{2};
  static constexpr int kLookShare = 50;
  static constexpr std::chrono::microseconds kQuickLook{40};  // as kShortPeriod allows

  // Between two questions while the arena does not change: as long as what is left lasts who takes
  // kTakenPerMillisecond (128 MiB/s), within the first two; the third for kWatch after somebody has
  // taken kRise between two looks, or more than there was.
  static constexpr std::chrono::milliseconds kIdlePeriod{150};
  static constexpr std::chrono::milliseconds kLongIdlePeriod{500};
  static constexpr std::chrono::milliseconds kWatchPeriod{20};
  static constexpr std::chrono::seconds kWatch{3};
  static constexpr uint64_t kRise = uint64_t{256} << 10;
  static constexpr uint64_t kTakenPerMillisecond = uint64_t{128} << 10;

  // `limit_file`: where the limit in force stands, in the directory of the group it holds for;
  // `limit_bytes`: what it says now. `fs` must outlive the gauge.
  PressureGauge(const CgroupFs& fs, int version, std::string limit_file, uint64_t limit_bytes,
                std::function<Clock::time_point()> clock = Clock::now);

  // The first `bytes` that are yielded are the arena's spare, which `requests` use at present. It
  // is all yielded until the numbers have been read.
  void SetSpare(uint64_t bytes, uint32_t requests) {
    spare_bytes_ = bytes;
    beside_spare_ = std::min(requests * kLeftPerRequest, kMostLeftForRequests);
  }

  // `relieve` gives back what can be had for next to nothing, and is called before anything is
  // yielded: mapped page cache of the process's own, which counts as in use.
  void SetRelief(std::function<void()> relieve) { relieve_ = std::move(relieve); }
  // So often at most, for it may bring nothing; what it finds to be written begins to be, and is to
  // be had the next time.
  static constexpr std::chrono::milliseconds kReliefPeriod{10};

  // The next question is answered by a look, whatever the last one took: more of the arena may be
  // in use from now on.
  void LookNext() { next_look_ = {}; }

  // `growth(yielded, enough)`: bytes that the arena may take beyond what it has in RAM, before the
  // next look, if so much of it is given up; more than that where it is not above `enough`.
  using Growth = std::function<uint64_t(uint64_t yielded, uint64_t enough)>;

  // Bytes of the arena that should be given up now: a multiple of kUnit, the first that is not
  // below `most_bytes` at most. Not to be asked before what it said last is done. What cannot be
  // read changes nothing.
  uint64_t Yield(uint64_t most_bytes, const Growth& growth);

  // How long whoever idles may wait until the next question.
  [[nodiscard]] std::chrono::milliseconds IdlePeriod() const;

  // As of the last look, and what Yield has said last.
  [[nodiscard]] uint64_t left_bytes() const { return left_bytes_; }
  [[nodiscard]] uint64_t yielded_bytes() const {
    return seen_ ? yielded_bytes_ : std::max(yielded_bytes_, spare_bytes_);
  }

 private:
  // False where it cannot be read.
  bool Look(const Growth& growth);
  // What should be left while so much is yielded.
  [[nodiscard]] uint64_t Least(uint64_t yielded) const {
    return yielded < spare_bytes_ ? kLeastLeft + beside_spare_ : kLeastLeft;
  }
  // What may be taken of what is left beside `reserved`.
  [[nodiscard]] uint64_t LeftBeside(uint64_t reserved) const;
  void Alarm(Clock::time_point now);

  const CgroupFs* fs_;
  int version_;
  std::string limit_file_;
  std::string directory_;
  std::unique_ptr<CgroupFile> usage_;
  uint64_t limit_bytes_;
  std::function<Clock::time_point()> clock_;
  std::function<void()> relieve_;
  uint64_t left_bytes_ = UINT64_MAX;
  uint64_t needed_bytes_ = kLeastLeft;  // Least and what the arena may still take
  uint64_t needed_for_more_ = 0;        // to take a unit back
  uint64_t yielded_bytes_ = 0;
  bool seen_ = false;  // there has been a look
  uint64_t spare_bytes_ = 0;
  uint64_t beside_spare_ = 0;
  uint64_t used_bytes_ = UINT64_MAX;  // as of the last look, page cache and all
  Clock::time_point looked_at_;       // last
  Clock::time_point watch_until_;
  Clock::time_point next_look_;
  Clock::time_point next_relief_;
  Clock::duration look_takes_ = kQuickLook;
  Clock::time_point back_at_;  // when a unit may be taken back, at the earliest
  bool taken_back_ = false;    // since the last alarm
  Clock::time_point taken_back_at_;
  std::chrono::milliseconds calm_ = kCalm;
};

}  // namespace thimble
