#include "daemon/ceiling/budget.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

TEST(Budget, LeavesTheReserveOutOfTheArena) {
  EXPECT_EQ(BudgetBytes(12 * kMiB), 4 * kMiB);
  EXPECT_EQ(BudgetBytes(16 * kMiB), 7 * kMiB);
  EXPECT_EQ(BudgetBytes(24 * kMiB), 15 * kMiB);
  EXPECT_EQ(BudgetBytes(64 * kMiB), 55 * kMiB);
  EXPECT_EQ(BudgetBytes(kGiB), kGiB - 9 * kMiB);
}

TEST(Budget, IsNothingWhereTheReserveAloneIsTooMuchAndEverythingWithoutACeiling) {
  EXPECT_EQ(BudgetBytes(0), 0U);
  EXPECT_EQ(BudgetBytes(8 * kMiB), 0U);
  EXPECT_EQ(BudgetBytes(8 * kMiB + 4096), 4096U);
  EXPECT_EQ(BudgetBytes(UINT64_MAX), UINT64_MAX);
}

TEST(Budget, TheSpareLeavesTheLeanReserve) {
  for (const uint64_t ceiling : {12 * kMiB, 16 * kMiB, 24 * kMiB, kGiB}) {
    EXPECT_EQ(ceiling - BudgetBytes(ceiling) - SpareBytes(ceiling), kReserveLeanBytes);
  }
  EXPECT_EQ(SpareBytes(8 * kMiB), 0U) << "no budget";
  EXPECT_EQ(SpareBytes(UINT64_MAX), 0U);
}

TEST(Budget, NeverFallsWhileTheCeilingRisesAndIsWholePages) {
  uint64_t last = 0;
  for (uint64_t ceiling = 0; ceiling < 256 * kMiB; ceiling += 100'003) {
    const uint64_t budget = BudgetBytes(ceiling);
    EXPECT_GE(budget, last) << ceiling;
    EXPECT_LE(budget, ceiling);
    EXPECT_EQ(budget % 4096, 0U);
    last = budget;
  }
}

}  // namespace
}  // namespace thimble
