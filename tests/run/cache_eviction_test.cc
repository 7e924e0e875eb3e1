#include "daemon/run/cache_eviction.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr double kUs = 1e3;
constexpr uint64_t kRing = 4 * kMiB;

// A disk, and what it takes to read a ring full in each way.
struct Disk {
  std::array<double, 3> ring_us;
  double waits = 0.7;  // a part of that
};
constexpr Disk kFar{{3200, 2900, 2000}};  // flushing is worth it
constexpr Disk kNear{{1700, 1800, 2000}};

class EvictionTrialsTest : public testing::Test {
 protected:
  void Window(const Disk& disk) {
    const double us = disk.ring_us.at(static_cast<size_t>(trials_.way())) * noise_(random_);
    now_ += us * kUs;
    stall_ += us * kUs * disk.waits;
    for (int part = 1; part < 8; ++part) ASSERT_FALSE(trials_.Used(kRing / 8));
    ASSERT_TRUE(trials_.Used(kRing / 8));
    trials_.EndWindow(static_cast<uint64_t>(now_), static_cast<uint64_t>(stall_));
  }
  // Of `n` windows those that went `way`.
  int Windows(int n, const Disk& disk, Eviction way) {
    int of_way = 0;
    for (int i = 0; i < n; ++i) {
      Window(disk);
      if (trials_.way() == way) ++of_way;
    }
    return of_way;
  }

  std::mt19937 random_{4};
  std::uniform_real_distribution<double> noise_{0.8, 1.2};
  EvictionTrials trials_{{Eviction::kNone, Eviction::kDemote, Eviction::kFlush}, kRing};
  double now_ = 1e12;
  double stall_ = 0;
};

TEST_F(EvictionTrialsTest, TheFastestWayIsFoundAndAnotherOneWhereTheDiskChanges) {
  constexpr int kFewTrials = 60;
  Windows(kFewTrials, kFar, Eviction::kFlush);
  EXPECT_GT(Windows(1000, kFar, Eviction::kFlush), 900);
  // Nothing becomes slower, so that a trial has to come around.
  Windows(3 * EvictionTrials::kMostBetween, kNear, Eviction::kNone);
  EXPECT_GT(Windows(1000, kNear, Eviction::kNone), 900);
  // All of a sudden it is slower: this is noticed at once.
  Windows(kFewTrials, kFar, Eviction::kFlush);
  EXPECT_GT(Windows(200, kFar, Eviction::kFlush), 160);
}

TEST_F(EvictionTrialsTest, WhatGainsNothingIsNotUsed) {
  EXPECT_GT(Windows(1000, {{1700, 1700, 1700}}, Eviction::kNone), 900);
}

TEST_F(EvictionTrialsTest, NothingIsEvictedWhereTheFlashIsHardlyWaitedFor) {
  EXPECT_EQ(Windows(100, {kFar.ring_us, 0.2}, Eviction::kNone), 100);
  Windows(200, kFar, Eviction::kFlush);
  EXPECT_GT(Windows(100, {kFar.ring_us, 0.15}, Eviction::kFlush), 70) << "it takes from waiting";
  Windows(20, {kFar.ring_us, 0.05}, Eviction::kNone);
  EXPECT_EQ(Windows(100, {kFar.ring_us, 0.05}, Eviction::kNone), 100);
  Windows(3, kFar, Eviction::kFlush);
  EXPECT_EQ(Windows(5, kFar, Eviction::kFlush), 5) << "the best way is known still";
}

TEST_F(EvictionTrialsTest, APauseBetweenRequestsTellsNothing) {
  Windows(400, kNear, Eviction::kNone);
  int of_way = 0;
  for (int i = 0; i < 20; ++i) {
    of_way += Windows(9, kNear, Eviction::kNone);
    Window({{9e6, 9e6, 9e6}, 0.001});
  }
  EXPECT_GT(of_way, 20 * 9 * 8 / 10);
}

TEST(EvictionTrials, WhereThereIsOneWayNoWindowEnds) {
  EvictionTrials trials({Eviction::kNone}, kRing);
  for (int i = 0; i < 100; ++i) ASSERT_FALSE(trials.Used(kRing));
  EXPECT_EQ(trials.way(), Eviction::kNone);
}

TEST(EvictionTrials, TheFirstWindowTellsNothing) {
  EvictionTrials trials({Eviction::kNone, Eviction::kFlush}, kRing);
  ASSERT_TRUE(trials.Used(kRing));
  trials.EndWindow(uint64_t{1} << 60, uint64_t{1} << 59);
  EXPECT_EQ(trials.way(), Eviction::kNone);
}

TEST(Eviction, TheWaysAreThoseThatTheProcessorHas) {
  std::vector<Eviction> ways = {Eviction::kNone};
#if defined(__x86_64__) || defined(__i386__)  // under qemu-arm cpuinfo is the host's
  std::ostringstream cpuinfo;
  cpuinfo << std::ifstream("/proc/cpuinfo").rdbuf();
  if (cpuinfo.str().find(" cldemote") != std::string::npos) ways.push_back(Eviction::kDemote);
  if (cpuinfo.str().find(" clflushopt") != std::string::npos) ways.push_back(Eviction::kFlush);
#endif
  EXPECT_EQ(EvictionsHere(), ways);
}

TEST(Eviction, LeavesEveryByteAsItWas) {
  std::vector<uint8_t> bytes(10000);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  const std::vector<uint8_t> before = bytes;
  for (const Eviction way : EvictionsHere()) {
    Evict(way, reinterpret_cast<const std::byte*>(bytes.data()) + 7, 9000);
    Evict(way, reinterpret_cast<const std::byte*>(bytes.data()), 0);
    EXPECT_EQ(bytes, before);
  }
}

}  // namespace
}  // namespace thimble
