#include "daemon/ceiling/pressure.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kUnit = PressureGauge::kUnit;
constexpr uint64_t kLeast = PressureGauge::kLeastLeft;

// A group whose numbers the test sets.
class FakeGroup final : public CgroupFs {
 public:
  [[nodiscard]] Result<std::string> Read(const std::string& path) const override {
    ++reads[path];
    if (gone) return NotFoundError(path);
    if (path == "/g/memory.limit_in_bytes" || path == "/g/memory.max") {
      return std::to_string(limit) + "\n";
    }
    if (path == "/g/memory.usage_in_bytes" || path == "/g/memory.current") {
      return std::to_string(used) + "\n";
    }
    // v1's own lines leave the groups beneath out.
    const std::string own = version == 1 ? "active_file 1\ninactive_file 1\n" : "";
    const std::string prefix = version == 1 ? "total_" : "";
    return own + prefix + "inactive_file " + std::to_string(cache / 2) + "\n" + prefix +
           "active_file " + std::to_string(cache - cache / 2) + "\n" + prefix +
           (version == 1 ? "mapped_file " : "file_mapped ") + std::to_string(mapped) + "\n" +
           prefix + (version == 1 ? "dirty " : "file_dirty ") + std::to_string(dirty) + "\n" +
           prefix + (version == 1 ? "writeback " : "file_writeback ") + std::to_string(writeback) +
           "\n" + prefix + "unevictable " + std::to_string(locked) + "\n" +
           (version == 2 ? "slab_reclaimable " + std::to_string(slab) + "\n" : "");
  }
  [[nodiscard]] bool IsDirectory(const std::string&) const override { return false; }
  [[nodiscard]] std::vector<std::string> Children(const std::string&) const override { return {}; }
  int Write(const std::string&, const std::string&) override { return EACCES; }
  int MakeDirectory(const std::string&) override { return EACCES; }
  int RemoveDirectory(const std::string&) override { return EACCES; }

  uint64_t limit = 24 * kMiB;
  uint64_t used = 0;
  uint64_t cache = 0;
  uint64_t mapped = 0;
  uint64_t locked = 0;
  uint64_t dirty = 0;
  uint64_t writeback = 0;
  uint64_t slab = 0;
  int version = 1;
  bool gone = false;
  mutable std::map<std::string, int> reads;
};

class PressureTest : public testing::TestWithParam<int> {
 protected:
  PressureTest() { group_.version = GetParam(); }

  uint64_t At(milliseconds at) {
    now_ = start_ + at;
    return gauge_.Yield(16 * kMiB, [this](uint64_t yielded, uint64_t enough) {
      const uint64_t back = gauge_.yielded_bytes() - yielded;
      // As the contract has it: as much as may be, where that changes nothing.
      return std::max(enough, growth_ + back + (yielded == 0 ? std::min(back, last_unit_) : 0));
    });
  }

  FakeGroup group_;
  uint64_t growth_ = 0;
  uint64_t last_unit_ = 0;  // more than kUnit
  milliseconds look_takes_{0};
  const PressureGauge::Clock::time_point start_ = PressureGauge::Clock::now();
  PressureGauge::Clock::time_point now_;
  PressureGauge gauge_{group_, GetParam(),
                       GetParam() == 1 ? "/g/memory.limit_in_bytes" : "/g/memory.max", 24 * kMiB,
                       [this] { return std::exchange(now_, now_ + look_takes_); }};
};

TEST_P(PressureTest, WhereEnoughIsLeftNothingIsGivenUpAndTheLongFileNotRead) {
  group_.used = 22 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  EXPECT_EQ(gauge_.left_bytes(), 2 * kMiB);
  EXPECT_EQ(group_.reads["/g/memory.stat"], 0);
}

TEST_P(PressureTest, WhoIdlesLooksAsOftenAsWhatIsLeftDemands) {
  const auto period_at = [this](milliseconds at) {
    now_ = start_ + at;
    gauge_.Yield(16 * kMiB, [this](uint64_t, uint64_t) { return growth_; });
    return gauge_.IdlePeriod();
  };
  EXPECT_EQ(gauge_.IdlePeriod(), PressureGauge::kLongIdlePeriod) << "before the first look";
  group_.used = 8 * kMiB;
  EXPECT_EQ(period_at(milliseconds(0)), PressureGauge::kIdlePeriod);
  group_.used += PressureGauge::kRise;
  EXPECT_EQ(period_at(milliseconds(40)), PressureGauge::kIdlePeriod);
  group_.used += PressureGauge::kRise + 4096;
  EXPECT_EQ(period_at(milliseconds(80)), PressureGauge::kWatchPeriod) << "somebody takes";
  EXPECT_EQ(period_at(milliseconds(80) + PressureGauge::kWatch), PressureGauge::kIdlePeriod);
  group_.used = 24 * kMiB;
  EXPECT_EQ(period_at(seconds(5)), PressureGauge::kWatchPeriod);
  EXPECT_GT(gauge_.yielded_bytes(), 0U);
  EXPECT_EQ(period_at(seconds(9)), PressureGauge::kWatchPeriod) << "there is still too little";
  // With an operator's new limit, what was given up comes back first.
  group_.limit = 68 * kMiB;
  for (int s = 10; gauge_.yielded_bytes() > 0 && s < 60; ++s) period_at(seconds(s));
  group_.used = 20 * kMiB;  // 47 MiB are free beside the least
  EXPECT_EQ(period_at(seconds(60)), milliseconds(376));
  growth_ = 32 * kMiB;  // the arena may still take them
  EXPECT_EQ(period_at(seconds(61)), PressureGauge::kIdlePeriod);
  growth_ = 0;
  PressureGauge large(group_, GetParam(),
                      GetParam() == 1 ? "/g/memory.limit_in_bytes" : "/g/memory.max", 512 * kMiB,
                      [this] { return now_; });
  large.Yield(16 * kMiB, [](uint64_t, uint64_t) { return uint64_t{0}; });
  EXPECT_EQ(large.IdlePeriod(), PressureGauge::kLongIdlePeriod);
}

TEST_P(PressureTest, PageCacheIsNotPressure) {
  group_.used = 24 * kMiB;
  group_.cache = 4 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  EXPECT_EQ(gauge_.left_bytes(), 4 * kMiB);
}

TEST_P(PressureTest, ButWhatIsMappedIsInUse) {
  group_.used = 24 * kMiB;
  group_.cache = 3 * kMiB;
  group_.mapped = 4 * kMiB;
  group_.locked = 2 * kMiB;  // stands in none of the lists that the cache is counted by
  EXPECT_EQ(At(milliseconds(0)), 0U);
  EXPECT_EQ(gauge_.left_bytes(), kMiB);
  group_.mapped = 6 * kMiB;
  EXPECT_EQ(At(milliseconds(20)), kLeast);
  EXPECT_EQ(gauge_.left_bytes(), 0U);
}

TEST_P(PressureTest, AndWhatIsToBeWrittenCannotBeTakenAtOnce) {
  group_.used = 24 * kMiB;
  group_.cache = 4 * kMiB;
  group_.dirty = 2 * kMiB;
  group_.writeback = kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  EXPECT_EQ(gauge_.left_bytes(), kMiB);
  group_.writeback = 2 * kMiB;
  EXPECT_EQ(At(milliseconds(20)), kLeast);
  EXPECT_EQ(gauge_.left_bytes(), 0U);
}

TEST_P(PressureTest, WhatTheArenaMayStillTakeIsNotLeft) {
  group_.used = 16 * kMiB;
  growth_ = 7 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  group_.used += kUnit / 2;
  EXPECT_EQ(At(milliseconds(20)), kUnit);
  growth_ -= kUnit;  // as it says after that
  EXPECT_EQ(At(milliseconds(40)), kUnit);
  group_.used += kUnit / 2;
  EXPECT_EQ(At(milliseconds(60)), kUnit);
  group_.used += 3 * kUnit;
  EXPECT_EQ(At(milliseconds(80)), 4 * kUnit);
  EXPECT_EQ(At(milliseconds(100)), 7 * kUnit) << "nothing of the growth was in it";
  growth_ = kMiB;
  EXPECT_EQ(At(milliseconds(120)), 7 * kUnit);
  group_.used = 24 * kMiB;
  group_.cache = 4 * kMiB - kUnit;
  growth_ = 3 * kMiB;
  EXPECT_EQ(At(milliseconds(140)), 8 * kUnit);
}

TEST_P(PressureTest, NorIsWhatVersion2CallsReclaimableOfTheKernel) {
  group_.used = 24 * kMiB;
  group_.slab = 4 * kMiB;
  const bool v2 = GetParam() == 2;
  EXPECT_EQ(At(milliseconds(0)), v2 ? 0U : kLeast);
  EXPECT_EQ(gauge_.left_bytes(), v2 ? 4 * kMiB : 0U);
}

TEST_P(PressureTest, WhatIsMissingIsGivenUpInUnitsAndMoreWhereThatIsNotEnough) {
  group_.used = 24 * kMiB;
  group_.cache = kLeast - kUnit - 1;
  EXPECT_EQ(At(milliseconds(0)), 2 * kUnit);
  EXPECT_EQ(At(milliseconds(1)), 2 * kUnit) << "too soon to look again";
  group_.cache = 0;
  EXPECT_EQ(At(milliseconds(2)), 2 * kUnit + kLeast);
  for (int ms = 4; ms < 60; ms += 2) At(milliseconds(ms));
  EXPECT_EQ(At(milliseconds(60)), 16 * kMiB) << "more than there is";
  group_.used = 8 * kMiB;
  EXPECT_EQ(At(milliseconds(80)), 16 * kMiB);
}

TEST_P(PressureTest, ItIsTakenBackAUnitAtATimeWhenThereHasBeenRoomForAWhile) {
  group_.used = 23 * kMiB + 2 * kUnit;
  EXPECT_EQ(At(milliseconds(0)), 2 * kUnit);
  group_.used = 23 * kMiB - kUnit;
  EXPECT_EQ(At(milliseconds(100)), 2 * kUnit);
  EXPECT_EQ(At(seconds(10)), 2 * kUnit) << "the next look would find too little";
  group_.used = 23 * kMiB - 2 * kUnit;
  EXPECT_EQ(At(milliseconds(10'100)), 2 * kUnit) << "there was no room a moment ago";
  EXPECT_EQ(At(milliseconds(10'500)), kUnit);
  growth_ = kUnit;
  EXPECT_EQ(At(milliseconds(10'600)), kUnit) << "nothing has filled the last one yet";
  growth_ = 0;
  group_.used += kUnit;
  EXPECT_EQ(At(milliseconds(11'200)), kUnit);
  group_.used -= kUnit;
  EXPECT_EQ(At(milliseconds(11'300)), kUnit) << "there was no room a moment ago";
  EXPECT_EQ(At(milliseconds(11'700)), 0U);
}

TEST_P(PressureTest, WhatWasTakenBackTooEarlyIsLeftAloneForLonger) {
  int at = 0;  // fifths of a second
  std::vector<int> waited;
  for (int round = 0; round < 5; ++round) {
    group_.used = 23 * kMiB + kUnit;
    ASSERT_EQ(At(milliseconds(200 * at)), kUnit);
    group_.used = 18 * kMiB;
    const int alarm = at;
    while (At(milliseconds(200 * ++at)) != 0) ASSERT_LT(at, alarm + 400);
    waited.push_back(at - alarm);
    ++at;
  }
  EXPECT_EQ(waited, (std::vector<int>{1, 2, 4, 8, 16}));
}

// With a spare, which takes less room where fewer requests use it.
TEST_P(PressureTest, TheSpareIsGivenUpWhileThereIsMoreLeft) {
  const uint64_t spare = 4 * kMiB;
  group_.used = 22 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  gauge_.SetSpare(spare, 4);
  EXPECT_EQ(At(milliseconds(20)), 0U) << "2 MiB are left, and as much is enough";
  gauge_.SetSpare(spare, 5);
  EXPECT_EQ(At(milliseconds(40)), PressureGauge::kLeftPerRequest);
  gauge_.SetSpare(spare, 64);
  group_.used = 24 * kMiB - kLeast - PressureGauge::kMostLeftForRequests;
  EXPECT_EQ(At(milliseconds(60)), PressureGauge::kLeftPerRequest);
  group_.used = 24 * kMiB - kLeast;
  EXPECT_EQ(At(milliseconds(80)),
            PressureGauge::kLeftPerRequest + PressureGauge::kMostLeftForRequests);
  for (int ms = 100; ms < 400; ms += 20) At(milliseconds(ms));
  EXPECT_EQ(At(milliseconds(400)), spare) << "and then no more, for the least is left";
  group_.used += kUnit;
  EXPECT_EQ(At(milliseconds(420)), spare + kUnit);
  group_.used = 20 * kMiB;
  for (int ms = 1000; ms < 6000; ms += 20) At(milliseconds(ms));
  EXPECT_EQ(At(milliseconds(6000)), 0U);
  // What is missing at the end of it is counted without.
  group_.used = 24 * kMiB;
  EXPECT_EQ(At(milliseconds(6020)), kLeast + PressureGauge::kMostLeftForRequests);
  EXPECT_EQ(At(milliseconds(6040)), spare);
  EXPECT_EQ(At(milliseconds(6060)), spare + kLeast);
}

TEST_P(PressureTest, WhatIsToBeHadForNothingIsTakenFirst) {
  int relieved = 0;
  gauge_.SetRelief([&] {
    ++relieved;
    group_.mapped = 0;
  });
  group_.used = 23 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  EXPECT_EQ(relieved, 0);
  group_.used = 24 * kMiB;
  group_.cache = group_.mapped = 2 * kMiB;
  EXPECT_EQ(At(milliseconds(20)), 0U);
  EXPECT_EQ(relieved, 1);
  group_.cache = 0;
  EXPECT_EQ(At(milliseconds(40)), kLeast);
  EXPECT_EQ(relieved, 2);
}

TEST_P(PressureTest, ButSeldom) {
  int relieved = 0;
  gauge_.SetRelief([&] { ++relieved; });
  group_.used = 24 * kMiB;
  for (int ms = 0; ms < 300; ms += 2) At(milliseconds(ms));
  EXPECT_EQ(relieved, 30);
}

TEST_P(PressureTest, TheSpareIsLeftAloneUntilTheNumbersAreKnown) {
  gauge_.SetSpare(kMiB, 1);
  group_.gone = true;
  EXPECT_EQ(gauge_.yielded_bytes(), kMiB);
  EXPECT_EQ(At(milliseconds(0)), kMiB);
  EXPECT_EQ(At(seconds(9)), kMiB);
  group_.gone = false;
  group_.used = 8 * kMiB;
  EXPECT_EQ(At(seconds(10)), 0U);
  EXPECT_EQ(gauge_.yielded_bytes(), 0U);
}

TEST_P(PressureTest, WhoBeginsToWorkLooksAtOnce) {
  group_.used = 8 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  group_.used = 24 * kMiB;
  EXPECT_EQ(At(milliseconds(1)), 0U) << "as of the last look";
  gauge_.LookNext();
  EXPECT_EQ(At(milliseconds(1)), kLeast);
}

TEST_P(PressureTest, ALimitThatWasRaisedIsHeeded) {
  group_.used = 24 * kMiB;
  group_.limit = 32 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), 0U);
  EXPECT_EQ(gauge_.left_bytes(), 8 * kMiB);
}

TEST_P(PressureTest, NumbersThatCannotBeReadChangeNothing) {
  group_.used = 24 * kMiB;
  EXPECT_EQ(At(milliseconds(0)), kLeast);
  group_.gone = true;
  EXPECT_EQ(At(seconds(5)), kLeast);
}

TEST_P(PressureTest, WithRoomItLooksSeldom) {
  group_.used = 8 * kMiB;
  for (int ms = 0; ms < 100; ++ms) EXPECT_EQ(At(milliseconds(ms)), 0U);
  const std::string file = GetParam() == 1 ? "/g/memory.usage_in_bytes" : "/g/memory.current";
  EXPECT_EQ(group_.reads[file], 5);
}

TEST_P(PressureTest, ALookThatTakesLongIsTakenSeldom) {
  look_takes_ = milliseconds(1);
  group_.used = 23 * kMiB;
  // In the beginning no look is known that took long: 80 us count of the first, 160 of the second.
  for (int ms = 0; ms < 200; ++ms) EXPECT_EQ(At(milliseconds(ms)), 0U);
  const std::string file = GetParam() == 1 ? "/g/memory.usage_in_bytes" : "/g/memory.current";
  const int at_first = std::exchange(group_.reads[file], 0);
  EXPECT_LE(at_first, 10);
  for (int ms = 200; ms < 1200; ++ms) EXPECT_EQ(At(milliseconds(ms)), 0U);
  EXPECT_EQ(group_.reads[file], 20);
}

TEST_P(PressureTest, OneLookThatTookLongDoesNotPutOffTheNext) {
  group_.used = 22 * kMiB;
  for (int ms = 0; ms < 200; ++ms) EXPECT_EQ(At(milliseconds(ms)), 0U);
  group_.used = 24 * kMiB;
  look_takes_ = milliseconds(100);  // the group is full, the kernel makes us wait
  EXPECT_EQ(At(milliseconds(400)), kLeast);
  look_takes_ = milliseconds(0);
  EXPECT_EQ(At(milliseconds(510)), 2 * kLeast);
}

INSTANTIATE_TEST_SUITE_P(Versions, PressureTest, testing::Values(1, 2));

}  // namespace
}  // namespace thimble
