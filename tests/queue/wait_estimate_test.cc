#include "daemon/queue/wait_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thimble {
namespace {

using testing::DoubleEq;
using testing::DoubleNear;
using testing::ElementsAre;
using Work = WaitEstimate::Work;

std::vector<double> Waits(WaitEstimate& estimate, const std::vector<Work>& active,
                          const std::vector<Work>& queued) {
  std::vector<double> seconds;
  estimate.Waits(active, queued, &seconds);
  return seconds;
}

TEST(WaitEstimate, NothingMeasuredIsNoWait) {
  WaitEstimate estimate(1, 64);
  EXPECT_THAT(Waits(estimate, {{100, 100}}, {{10, 10}}), ElementsAre(0, 0));
}

TEST(WaitEstimate, AFreeSlotIsNoWait) {
  WaitEstimate estimate(2, 64);
  estimate.Measured(false, 0.5);
  EXPECT_THAT(Waits(estimate, {{0, 10}}, {}), ElementsAre(0));
  EXPECT_THAT(Waits(estimate, {{0, 10}}, {{0, 100}}), ElementsAre(0, DoubleEq(5)));
}

TEST(WaitEstimate, CountsWhatIsLeftOfTheActiveAndOfThoseAhead) {
  WaitEstimate estimate(2, 64);
  estimate.Measured(false, 0.1);
  estimate.Measured(true, 0.4);
  // One slot is free after 30 tokens, the other after 2 chunks of a prompt and 50 tokens.
  EXPECT_THAT(Waits(estimate, {{1, 29}, {65, 50}}, {{64, 10}, {0, 1}}),
              ElementsAre(DoubleNear(3.3, 1e-9), DoubleNear(4.7, 1e-9), DoubleNear(4.8, 1e-9)));
}

TEST(WaitEstimate, FollowsAChangeOfLoad) {
  WaitEstimate estimate(1, 64);
  estimate.Measured(false, 0.1);
  for (int i = 0; i < 20; ++i) estimate.Measured(false, 1);
  EXPECT_THAT(Waits(estimate, {{0, 10}}, {}), ElementsAre(DoubleNear(10, 0.2)));
}

}  // namespace
}  // namespace thimble
