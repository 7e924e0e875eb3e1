#include "daemon/ceiling/pressure.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "daemon/ceiling/cgroup.h"
#include "storage/base/bytes.h"

namespace thimble {

PressureGauge::PressureGauge(const CgroupFs& fs, int version, std::string limit_file,
                             uint64_t limit_bytes, std::function<Clock::time_point()> clock)
    : fs_(&fs),
      version_(version),
      limit_file_(std::move(limit_file)),
      directory_(limit_file_.substr(0, limit_file_.rfind('/'))),
      usage_(fs.Keep(directory_ + (version == 1 ? "/memory.usage_in_bytes" : "/memory.current"))),
      limit_bytes_(limit_bytes),
      clock_(std::move(clock)) {}

uint64_t PressureGauge::LeftBeside(uint64_t reserved) const {
  return left_bytes_ - std::min(left_bytes_, reserved);
}

bool PressureGauge::Look(const Growth& growth) {
  const bool v1 = version_ == 1;
  const Result<std::string> usage = usage_->Read();
  const std::optional<uint64_t> used = usage.ok() ? ParseLimit(*usage) : std::optional<uint64_t>();
  if (!used.has_value()) return false;
  if (*used >= kRise && *used - kRise > used_bytes_) watch_until_ = looked_at_ + kWatch;
  used_bytes_ = *used;
  left_bytes_ = limit_bytes_ - std::min(limit_bytes_, *used);
  const uint64_t least = Least(yielded_bytes_);
  needed_bytes_ = least + growth(yielded_bytes_, LeftBeside(least + kFar));
  // The other files are read only where it matters.
  if (left_bytes_ >= needed_bytes_ && yielded_bytes_ == 0) return true;
  // An operator may have changed the limit.
  if (const Result<std::string> limit = fs_->Read(limit_file_); limit.ok()) {
    limit_bytes_ = ParseLimit(*limit).value_or(limit_bytes_);
    left_bytes_ = limit_bytes_ - std::min(limit_bytes_, *used);
  }
  const Result<std::string> stat = fs_->Read(directory_ + "/memory.stat");
  if (!stat.ok()) return false;
  // v1's total_ lines include groups beneath, as the usage does; it has no line for the slab.
  const auto line = [&](const char* name) {
    return ParseStat(*stat, std::string(v1 ? "total_" : "") + name).value_or(0);
  };
  const uint64_t mapped = line(v1 ? "mapped_file" : "file_mapped");
  const uint64_t unwritten =
      line(v1 ? "dirty" : "file_dirty") + line(v1 ? "writeback" : "file_writeback");
  const uint64_t not_at_once = mapped - std::min(mapped, line("unevictable")) + unwritten;
  const uint64_t cache = line("active_file") + line("inactive_file");
  left_bytes_ += cache - std::min(cache, not_at_once) + line("slab_reclaimable");
  if (yielded_bytes_ > 0) {
    const uint64_t beside = Least(yielded_bytes_ - kUnit) + kEnoughLeft;
    needed_for_more_ = beside + growth(yielded_bytes_ - kUnit, LeftBeside(beside));
  }
  return true;
}

std::chrono::milliseconds PressureGauge::IdlePeriod() const {
  if (looked_at_ < watch_until_) return kWatchPeriod;
  const uint64_t lasts = LeftBeside(needed_bytes_) / kTakenPerMillisecond;
  return std::clamp(std::chrono::milliseconds(std::min<uint64_t>(lasts, kLongIdlePeriod.count())),
                    kIdlePeriod, kLongIdlePeriod);
}

void PressureGauge::Alarm(Clock::time_point now) {
  if (std::exchange(taken_back_, false)) {
    const bool too_early = now - taken_back_at_ < 2 * calm_;
    calm_ = too_early ? std::min(2 * calm_, kMostCalm) : kCalm;
  }
  back_at_ = now + calm_;
  watch_until_ = now + kWatch;
}

uint64_t PressureGauge::Yield(uint64_t most_bytes, const Growth& growth) {
  const Clock::time_point begin = clock_();
  if (begin < next_look_) return yielded_bytes();
  looked_at_ = begin;
  if (!Look(growth)) return yielded_bytes();
  seen_ = true;
  const Clock::time_point now = clock_();
  if (left_bytes_ < needed_bytes_ && relieve_ && now >= next_relief_) {
    next_relief_ = now + kReliefPeriod;
    relieve_();
    if (!Look(growth)) return yielded_bytes_;
  }
  if (left_bytes_ < needed_bytes_) {
    const uint64_t missing = needed_bytes_ - left_bytes_;
    uint64_t wanted = yielded_bytes_ + AlignUp(missing, kUnit);
    if (yielded_bytes_ < spare_bytes_ && wanted > spare_bytes_) {
      // Without any of it less is needed.
      const uint64_t beside = missing - std::min(missing, beside_spare_);
      wanted = std::max(AlignUp(spare_bytes_, kUnit), yielded_bytes_ + AlignUp(beside, kUnit));
    }
    yielded_bytes_ = std::min(wanted, AlignUp(most_bytes, kUnit));
    Alarm(now);
  } else if (yielded_bytes_ > 0) {
    if (left_bytes_ < needed_for_more_) {
      back_at_ = now + calm_;
    } else if (now >= back_at_) {
      yielded_bytes_ -= kUnit;
      taken_back_ = true;
      taken_back_at_ = now;
      back_at_ = now + kBackPeriod;
    }
  }
  Clock::duration period = left_bytes_ < needed_bytes_ + kFar ? kNearPeriod : kPeriod;
  if (left_bytes_ < needed_bytes_) period = kShortPeriod;
  look_takes_ = std::clamp<Clock::duration>(now - begin, kQuickLook, 2 * look_takes_);
  next_look_ = now + std::max(period, kLookShare * look_takes_);
  return yielded_bytes_;
}

}  // namespace thimble
