#include "client/bench_stats.h"

#include <gtest/gtest.h>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

TEST(SpreadOf, IsTheMedianAndTheEnds) {
  const Spread odd = SpreadOf({5, 1, 9});
  EXPECT_EQ(odd.median, 5);
  EXPECT_EQ(odd.low, 1);
  EXPECT_EQ(odd.high, 9);
  EXPECT_EQ(SpreadOf({4, 1, 3, 2}).median, 2.5);
  EXPECT_EQ(SpreadOf({}).median, 0);
}

TEST(Bound, IsComputingAndReadingWhatTheCeilingDoesNotHold) {
  // 100 MB of weights, 60 MB of ceiling, 2 GB/s: 20 ms of reading, and 5 ms of computing.
  EXPECT_NEAR(BoundTokensPerSecond(100'000'000, 60'000'000, 2e9, 0.005, 1), 40, 1e-9);
  // The reading serves eight tokens, of which each takes 5 ms.
  EXPECT_NEAR(BoundTokensPerSecond(100'000'000, 60'000'000, 2e9, 0.005, 8), 1 / 0.0075, 1e-9);
}

TEST(Bound, IsComputingAloneWhereEverythingFits) {
  EXPECT_NEAR(BoundTokensPerSecond(100, 100, 0, 0.01, 1), 100, 1e-9);
  EXPECT_NEAR(BoundTokensPerSecond(100, kNoCeiling, 1e9, 0.01, 1), 100, 1e-9);
}

TEST(Bound, OfAFlashThatGivesNothingIsZeroAndFinite) {
  EXPECT_EQ(BoundTokensPerSecond(100, 50, 0, 0.01, 1), 0);
  BenchRow row;
  row.samples.emplace_back().generation_tokens_per_second = 3;
  EXPECT_EQ(row.fraction_of_bound(), 0);
}

TEST(BenchRow, FractionIsOfTheMedian) {
  BenchRow row;
  for (const double speed : {8.0, 9.0, 30.0}) {
    row.samples.emplace_back().generation_tokens_per_second = speed;
  }
  row.bound_tokens_per_second = 10;
  EXPECT_EQ(row.fraction_of_bound(), 0.9);
}

}  // namespace
}  // namespace thimble
