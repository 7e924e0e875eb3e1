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

TEST(BenchRow, EachRunIsHeldAgainstItsOwnFlash) {
  // 100 MB of weights, 60 MB of ceiling, 5 ms of computing; a disk that is slow at times.
  BenchRow row;
  row.ceiling_bytes = 60'000'000;
  row.samples = {{.generation_tokens_per_second = 36, .flash_bytes_per_second = 2e9},
                 {.generation_tokens_per_second = 20, .flash_bytes_per_second = 1e9},
                 {.generation_tokens_per_second = 38, .flash_bytes_per_second = 2e9}};
  SetBounds(row, 100'000'000, 0.005, 1);
  EXPECT_NEAR(row.samples[0].bound_tokens_per_second, 40, 1e-9);
  EXPECT_NEAR(row.samples[1].bound_tokens_per_second, 1 / 0.045, 1e-9);
  EXPECT_NEAR(row.bound(), 40, 1e-9);
  EXPECT_EQ(row.flash(), 2e9);
  EXPECT_NEAR(row.fraction_of_bound(), 0.9, 1e-9);  // of 0.9, 0.9 and 0.95
}

TEST(BenchRow, WithoutACeilingTheBoundIsWhatWasReached) {
  BenchRow row;
  for (const double speed : {8.0, 9.0, 30.0}) {
    row.samples.emplace_back().generation_tokens_per_second = speed;
  }
  SetBounds(row, 100, 0.01, 1);
  EXPECT_EQ(row.bound(), 9);
  EXPECT_EQ(row.fraction_of_bound(), 1);
}

}  // namespace
}  // namespace thimble
