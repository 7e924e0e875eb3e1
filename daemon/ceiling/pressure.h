// How close the group is to its limit, and what the arena should give up so that the kernel never
// has to kill: the reserve (budget.h) covers what thimble itself needs, not what others in the
// group do (a shell in the container, a health check, a sidecar in the pod). Called by: the engine,
// in every turn of the event loop. Memory: some strings.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "daemon/ceiling/cgroup_fs.h"

namespace thimble {

class PressureGauge {
 public:
  using Clock = std::chrono::steady_clock;

  // What should be free, or page cache that the kernel can take back at once.
  static constexpr uint64_t kLeastLeft = uint64_t{1536} << 10;
  // How much more than that must be left after something is taken back, and for how long before.
  static constexpr uint64_t kEnoughLeft = uint64_t{512} << 10;
  static constexpr std::chrono::seconds kCalm{2};
  // A unit in this time is taken back then.
  static constexpr std::chrono::milliseconds kBackPeriod{250};
  // The arena is given up and taken back in huge pages.
  static constexpr uint64_t kUnit = uint64_t{2} << 20;
  // Between two looks at the kernel's numbers: while there is more than enough, and else.
  static constexpr std::chrono::milliseconds kPeriod{20};
  static constexpr std::chrono::milliseconds kShortPeriod{2};

  // `directory`: the group on which the limit in force stands. `fs` must outlive the gauge.
  PressureGauge(const CgroupFs& fs, int version, std::string directory, uint64_t limit_bytes)
      : fs_(&fs), version_(version), directory_(std::move(directory)), limit_bytes_(limit_bytes) {}

  // Bytes of the arena that should be given up as of `now`: a multiple of kUnit, the first that is
  // not below `most_bytes` at most. What cannot be read changes nothing.
  uint64_t Yield(Clock::time_point now, uint64_t most_bytes);

  // Free, or page cache that is not locked, as of the last look.
  [[nodiscard]] uint64_t left_bytes() const { return left_bytes_; }

 private:
  // False where it cannot be read.
  bool Look();

  const CgroupFs* fs_;
  int version_;
  std::string directory_;
  uint64_t limit_bytes_;
  uint64_t left_bytes_ = UINT64_MAX;
  uint64_t yielded_bytes_ = 0;
  Clock::time_point next_look_;
  Clock::time_point back_at_;
};

}  // namespace thimble
