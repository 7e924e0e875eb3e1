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
  estimate.Measured(0, 0.5);
  EXPECT_THAT(Waits(estimate, {{0, 10}}, {}), ElementsAre(0));
  EXPECT_THAT(Waits(estimate, {{0, 10}}, {{0, 100}}), ElementsAre(0, DoubleEq(5)));
}

TEST(WaitEstimate, CountsWhatIsLeftOfTheActiveAndOfThoseAhead) {
  WaitEstimate estimate(2, 64);
  estimate.Measured(0, 0.1);
  estimate.Measured(60, 0.4);
  // A row of a prompt takes 5 ms. One slot is free after a pass of 2 of them and 29 tokens, the
  // other after 2 chunks of a prompt and 50 tokens.
  EXPECT_THAT(Waits(estimate, {{2, 29}, {80, 50}}, {{64, 10}, {0, 1}}),
              ElementsAre(DoubleNear(3.01, 1e-9), DoubleNear(4.43, 1e-9), DoubleNear(4.53, 1e-9)));
}

// Measured alone, in one pass of many rows; then it shares passes with tokens of others.
TEST(WaitEstimate, APromptTakesAsLongInPassesOfFewRows) {
  WaitEstimate estimate(1, 55);
  estimate.Measured(0, 0.016);
  estimate.Measured(256, 0.016 + 256 * 0.0013);
  EXPECT_THAT(Waits(estimate, {{448, 0}}, {}),
              ElementsAre(DoubleNear(9 * 0.016 + 448 * 0.0013, 1e-9)));
}

TEST(WaitEstimate, BeforeAnyTokenAPromptsRowsAreAllThatIsKnown) {
  WaitEstimate estimate(1, 64);
  estimate.Measured(64, 0.64);
  EXPECT_THAT(Waits(estimate, {{128, 50}}, {}), ElementsAre(DoubleNear(1.28, 1e-9)));
}

TEST(WaitEstimate, FollowsAChangeOfLoad) {
  WaitEstimate estimate(1, 64);
  estimate.Measured(0, 0.1);
  for (int i = 0; i < 20; ++i) estimate.Measured(0, 1);
  EXPECT_THAT(Waits(estimate, {{0, 10}}, {}), ElementsAre(DoubleNear(10, 0.2)));
}

}  // namespace
}  // namespace thimble
