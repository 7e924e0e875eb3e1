#include "daemon/run/cache_demotion.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr uint64_t kMs = 1000000;

TEST(CacheDemotion, BeginsWherePassesWaitForMostOfTheirTimeAndEndsWhereTheyHardlyDo) {
  CacheDemotion demotion(true);
  uint64_t now = 1000 * kMs;
  uint64_t stall = 0;
  const auto pass = [&](uint64_t took_ms, uint64_t waited_ms) {
    now += took_ms * kMs;
    stall += waited_ms * kMs;
    demotion.BeginPass(now, stall);
    return demotion.active();
  };
  demotion.BeginPass(now, stall);
  EXPECT_FALSE(demotion.active()) << "of no pass is anything known";
  EXPECT_FALSE(pass(40, 20));
  EXPECT_TRUE(pass(40, 28));
  EXPECT_TRUE(pass(30, 12)) << "it takes time of the processor itself";
  EXPECT_FALSE(pass(40, 8));
  EXPECT_FALSE(pass(30, 12));
}

TEST(CacheDemotion, IsNeverActiveWhereItDoesNotHelp) {
  CacheDemotion demotion(false);
  demotion.BeginPass(1000 * kMs, 0);
  demotion.BeginPass(1040 * kMs, 39 * kMs);
  EXPECT_FALSE(demotion.active());
}

TEST(CacheDemotion, HelpsWithSmallRingsWhereTheProcessorHasTheInstruction) {
  std::ostringstream cpuinfo;
  cpuinfo << std::ifstream("/proc/cpuinfo").rdbuf();
  const bool has = cpuinfo.str().find(" cldemote") != std::string::npos;
  const bool large = ::sysconf(_SC_LEVEL2_CACHE_SIZE) >= static_cast<long>(kMiB);
  EXPECT_EQ(DemotionHelps(kMiB), has && large);
  EXPECT_FALSE(DemotionHelps(64 * kMiB));
}

TEST(CacheDemotion, LeavesEveryByteAsItWas) {
  std::vector<uint8_t> bytes(10000);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  const std::vector<uint8_t> before = bytes;
  Demote(reinterpret_cast<const std::byte*>(bytes.data()) + 7, 9000);
  Demote(reinterpret_cast<const std::byte*>(bytes.data()), 0);
  EXPECT_EQ(bytes, before);
}

}  // namespace
}  // namespace thimble
