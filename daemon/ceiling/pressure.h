// How close the group is to its limit, and what the arena should give up so that the kernel need
// not kill: the reserve (budget.h) covers what thimble itself needs, not what others in the group
// do (a shell in the container, a health check, a sidecar in the pod). It is asked in every turn of
// the event loop, idle every 150 ms, every 20 once something is given up: who takes all that is
// left in less is not met by it. Called by: the engine. Memory: some strings.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "daemon/ceiling/cgroup_fs.h"

namespace thimble {

class PressureGauge {
 public:
  using Clock = std::chrono::steady_clock;

  // What should be free, or what the kernel can take back at once: page cache, caches of its own.
  // Not page cache that is mapped, as shared libraries are: what is in use comes back at once.
  static constexpr uint64_t kLeastLeft = uint64_t{1} << 20;
  // The arena is given up and taken back in huge pages.
  static constexpr uint64_t kUnit = uint64_t{2} << 20;
  // How much more than kLeastLeft must be left after a unit is taken back, and for how long before:
  // twice as long after each time that it was too early.
  static constexpr uint64_t kEnoughLeft = uint64_t{256} << 10;
  static constexpr std::chrono::seconds kCalm{2};
  static constexpr std::chrono::seconds kMostCalm{300};
  // Then a unit in this time is taken back, and in so many passes, which fill it.
  static constexpr std::chrono::milliseconds kBackPeriod{250};
  static constexpr uint64_t kBackPasses = 2;
  // Between two looks at the kernel's numbers: while there is more than enough, and else; in any
  // case so many times what the last look took (60 us on a fast processor).
  static constexpr std::chrono::milliseconds kPeriod{20};
  static constexpr std::chrono::milliseconds kShortPeriod{2};
  static constexpr int kLookShare = 50;

  // `limit_file`: where the limit in force stands, in the directory of the group it holds for;
  // `limit_bytes`: what it says now. `fs` must outlive the gauge.
  PressureGauge(const CgroupFs& fs, int version, std::string limit_file, uint64_t limit_bytes,
                std::function<Clock::time_point()> clock = Clock::now);

  // Bytes of the arena that should be given up now: a multiple of kUnit, the first that is not
  // below `most_bytes` at most. `passes`: that have gone over the weights so far. What cannot be
  // read changes nothing.
  uint64_t Yield(uint64_t most_bytes, uint64_t passes);

  // As of the last look, and what Yield has said last.
  [[nodiscard]] uint64_t left_bytes() const { return left_bytes_; }
  [[nodiscard]] uint64_t yielded_bytes() const { return yielded_bytes_; }

 private:
  // False where it cannot be read.
  bool Look();
  void Alarm(Clock::time_point now);

  const CgroupFs* fs_;
  int version_;
  std::string limit_file_;
  std::string directory_;
  uint64_t limit_bytes_;
  std::function<Clock::time_point()> clock_;
  uint64_t left_bytes_ = UINT64_MAX;
  uint64_t yielded_bytes_ = 0;
  Clock::time_point next_look_;
  Clock::time_point back_at_;  // when a unit may be taken back, at the earliest
  uint64_t back_pass_ = 0;
  bool taken_back_ = false;  // since the last alarm
  Clock::time_point taken_back_at_;
  std::chrono::seconds calm_ = kCalm;
};

}  // namespace thimble
