#include "daemon/figures.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

uint64_t Sum(const MemoryOwners& o) {
  return o.program + o.work + o.resident + o.page_cache + o.kernel;
}

TEST(Figures, OwnersAddUpToWhatTheGroupUses) {
  CeilingUsage usage;
  usage.current = 1000;
  usage.page_cache = 500;
  usage.anonymous = 400;
  usage.locked = 200;
  const MemoryOwners owners = SplitByOwner(usage, {.work_bytes = 100, .resident_bytes = 250});
  EXPECT_EQ(owners.work, 100);
  EXPECT_EQ(owners.resident, 250);
  EXPECT_EQ(owners.program, 50 + 200) << "the heap, and the code that is locked";
  EXPECT_EQ(owners.page_cache, 300);
  EXPECT_EQ(owners.kernel, 100);
  EXPECT_EQ(Sum(owners), usage.current);
}

TEST(Figures, CountersOfDifferentMomentsMakeNoNegativeOwner) {
  CeilingUsage usage;
  usage.current = 90;  // counted before the rest
  usage.page_cache = 60;
  usage.anonymous = 50;
  usage.locked = 70;
  const MemoryOwners owners = SplitByOwner(usage, {.work_bytes = 80, .resident_bytes = 40});
  EXPECT_EQ(owners.resident, 40);
  EXPECT_EQ(owners.work, 10);
  EXPECT_EQ(owners.program, 60);
  EXPECT_EQ(owners.page_cache, 0);
  EXPECT_EQ(owners.kernel, 0);
}

TEST(Figures, WrittenBytesComeFromTheKernelsLine) {
  EXPECT_EQ(WriteBytes("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 4096\n"
                       "cancelled_write_bytes: 7\n"),
            4096);
  EXPECT_EQ(WriteBytes(""), 0);
  EXPECT_EQ(WriteBytes("rchar: 1\n"), 0) << "a kernel without I/O accounting";
}

}  // namespace
}  // namespace thimble
