#include "daemon/ceiling/pressure.h"

#include <algorithm>
#include <optional>

#include "daemon/ceiling/cgroup.h"
#include "storage/base/bytes.h"

namespace thimble {

bool PressureGauge::Look() {
  const bool v1 = version_ == 1;
  const Result<std::string> usage =
      fs_->Read(directory_ + (v1 ? "/memory.usage_in_bytes" : "/memory.current"));
  const std::optional<uint64_t> used = usage.ok() ? ParseLimit(*usage) : std::optional<uint64_t>();
  if (!used.has_value()) return false;
  left_bytes_ = limit_bytes_ - std::min(limit_bytes_, *used);
  // The long file is read only where it matters.
  if (left_bytes_ >= kLeastLeft && yielded_bytes_ == 0) return true;
  const Result<std::string> stat = fs_->Read(directory_ + "/memory.stat");
  if (!stat.ok()) return false;
  // v1's total_ lines include groups beneath, as the usage does.
  for (const char* list : {"active_file", "inactive_file"}) {
    left_bytes_ += ParseStat(*stat, std::string(v1 ? "total_" : "") + list).value_or(0);
  }
  return true;
}

uint64_t PressureGauge::Yield(Clock::time_point now, uint64_t most_bytes) {
  if (now < next_look_ || !Look()) return yielded_bytes_;
  if (left_bytes_ < kLeastLeft) {
    yielded_bytes_ = std::min(yielded_bytes_ + AlignUp(kLeastLeft - left_bytes_, kUnit),
                              AlignUp(most_bytes, kUnit));
    back_at_ = now + kCalm;
  } else if (yielded_bytes_ > 0) {
    if (left_bytes_ < kLeastLeft + kEnoughLeft + kUnit) {
      back_at_ = now + kCalm;
    } else if (now >= back_at_) {
      yielded_bytes_ -= kUnit;
      back_at_ = now + kBackPeriod;
    }
  }
  next_look_ = now + (left_bytes_ < kLeastLeft + kUnit ? kShortPeriod : kPeriod);
  return yielded_bytes_;
}

}  // namespace thimble
