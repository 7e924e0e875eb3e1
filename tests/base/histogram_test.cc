#include "storage/base/histogram.h"

#include <gtest/gtest.h>

#include <numeric>

namespace thimble {
namespace {

TEST(Histogram, AValueOnABoundBelongsToItsBucket) {
  for (size_t i = 0; i < Histogram::kBounds.size(); ++i) {
    Histogram histogram;
    histogram.Observe(Histogram::kBounds[i]);
    EXPECT_EQ(histogram.counts[i], 1) << Histogram::kBounds[i];
    histogram.Observe(Histogram::kBounds[i] * 1.0001);
    EXPECT_EQ(histogram.counts[i + 1], 1) << Histogram::kBounds[i];
  }
}

TEST(Histogram, EveryValueIsCountedOnceAndSummed) {
  Histogram histogram;
  for (const double value : {0.0, 0.0004, 0.3, 7.5, 1e9}) histogram.Observe(value);
  EXPECT_EQ(std::accumulate(histogram.counts.begin(), histogram.counts.end(), uint64_t{0}), 5);
  EXPECT_EQ(histogram.counts.front(), 2);
  EXPECT_EQ(histogram.counts.back(), 1);
  EXPECT_DOUBLE_EQ(histogram.sum, 1e9 + 7.8004);
}

}  // namespace
}  // namespace thimble
