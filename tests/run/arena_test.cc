#include "daemon/run/arena.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

// Of /proc/self/status, in KiB.
uint64_t StatusKiB(const std::string& key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    uint64_t value = 0;
    if (word == key + ":" && status >> value) return value;
  }
  return 0;
}

TEST(Arena, IsZeroPageAlignedAndAsLargeAsAskedFor) {
  for (const uint64_t bytes :
       {uint64_t{1}, 5 * kKiB, 2 * kMiB - 1, 2 * kMiB, 7 * kMiB + 4096 + 3}) {
    const auto arena = Arena::Map(bytes);
    ASSERT_TRUE(arena.ok()) << arena.status().ToString();
    const std::span<std::byte> all = (*arena)->all();
    ASSERT_EQ(all.size(), bytes);
    const uint64_t alignment = bytes >= 2 * kMiB ? 2 * kMiB : 4 * kKiB;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(all.data()) % alignment, 0U);
    for (size_t i = 0; i < all.size(); i += 509) ASSERT_EQ(all[i], std::byte{0});
    all.back() = std::byte{1};
  }
}

TEST(Arena, TakesNoMoreThanItsSizeAndGivesAllOfItBack) {
  const uint64_t size_before = StatusKiB("VmSize");
  const uint64_t rss_before = StatusKiB("VmRSS");
  constexpr uint64_t kBytes = 21 * kMiB + 12 * kKiB;
  for (int round = 0; round < 8; ++round) {
    const auto arena = Arena::Map(kBytes);
    ASSERT_TRUE(arena.ok());
    for (std::byte& byte : (*arena)->all()) byte = std::byte{1};
    EXPECT_LE(StatusKiB("VmRSS"), rss_before + kBytes / kKiB + 1024);
    EXPECT_LE(StatusKiB("VmSize"), size_before + kBytes / kKiB + 1024);
  }
  EXPECT_LE(StatusKiB("VmSize"), size_before + 1024);
}

TEST(Arena, RemembersTheFurthestByteHandedOut) {
  const auto arena = Arena::Map(kMiB);
  ASSERT_TRUE(arena.ok());
  (*arena)->Use(100, 50);
  (*arena)->Use(0, 20);
  EXPECT_EQ((*arena)->peak_bytes(), 150U);
}

// Anonymous huge pages of this process, in KiB: all of them are the arena's.
uint64_t HugeKiB() {
  std::ifstream maps("/proc/self/smaps");
  uint64_t sum = 0;
  std::string word;
  while (maps >> word) {
    uint64_t value = 0;
    if (word == "AnonHugePages:" && maps >> value) sum += value;
  }
  return sum;
}

// On this machine, ever.
uint64_t HugePagesParted() {
  std::ifstream vmstat("/proc/vmstat");
  std::string word;
  while (vmstat >> word) {
    uint64_t value = 0;
    if (word == "thp_split_page" && vmstat >> value) return value;
  }
  return 0;
}

TEST(Arena, WhatIsGivenBackIsZeroAndItsNeighboursStay) {
  const auto arena = Arena::Map(8 * kMiB);
  ASSERT_TRUE(arena.ok());
  const std::span<std::byte> all = (*arena)->all();
  std::fill(all.begin(), all.end(), std::byte{7});
  // Parts of huge pages, a whole one between them, and bytes of pages that are not given back.
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = kMiB + 5;
  const uint64_t end = 5 * kMiB + page + 1;
  const uint64_t huge = HugeKiB();
  const uint64_t parted = HugePagesParted();
  (*arena)->Release(begin, end);
  if (huge == 8 * kKiB) {
    EXPECT_EQ(HugeKiB(), 2 * kKiB) << "the last one is whole";
    EXPECT_GE(HugePagesParted(), parted + 2) << "else they stay in RAM as long as a part is used";
  }
  EXPECT_EQ((*arena)->InRam(0, 8 * kMiB), 4 * kMiB);
  for (uint64_t i = 0; i < all.size(); ++i) {
    const bool gone = i >= kMiB + page && i < 5 * kMiB + page;
    ASSERT_EQ(all[i], std::byte{gone ? uint8_t{0} : uint8_t{7}}) << i;
  }
  (*arena)->Release(100, page);  // no whole page
  EXPECT_EQ(all[100], std::byte{7});
}

TEST(Arena, RefusesWhatNoMachineHas) {
  const auto arena = Arena::Map(UINT64_MAX - 5);
  ASSERT_FALSE(arena.ok());
  EXPECT_FALSE(Arena::Map(0).ok());
}

}  // namespace
}  // namespace thimble
