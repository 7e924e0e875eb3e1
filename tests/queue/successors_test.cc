#include "daemon/queue/successors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

void Learn(Successors& successors, int32_t token, const std::vector<int32_t>& likeliest) {
  successors.Learn(token, likeliest);
}

TEST(Successors, AreTheLikeliestOfTheLastTime) {
  Successors successors(100);
  EXPECT_THAT(successors.After(5), IsEmpty());
  Learn(successors, 5, {7, 8, 9});
  Learn(successors, 6, {1});
  EXPECT_THAT(successors.After(5), ElementsAre(7, 8, 9));
  Learn(successors, 5, {4, 7});
  EXPECT_THAT(successors.After(5), ElementsAre(4, 7)) << "nothing of what was there before";
  EXPECT_THAT(successors.After(6), ElementsAre(1));
  EXPECT_THAT(successors.After(7), IsEmpty());
}

TEST(Successors, MoreThanThereIsRoomForAreLeftOut) {
  Successors successors(100);
  Learn(successors, 1, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_THAT(successors.After(1), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(Successors, TokensThatShareAnEntryTakeItFromEachOther) {
  Successors successors(100'000);
  const auto other = static_cast<int32_t>(5 + Successors::kMostEntries);
  Learn(successors, 5, {7});
  Learn(successors, other, {8});
  EXPECT_THAT(successors.After(5), IsEmpty()) << "never another token's";
  EXPECT_THAT(successors.After(other), ElementsAre(8));
}

TEST(Successors, WhereThereAreNoDraftsNothingIsLearned) {
  Successors successors(0);
  Learn(successors, 5, {7});
  EXPECT_THAT(successors.After(5), IsEmpty());
}

TEST(Successors, NothingIsLearnedOfNothing) {
  Successors successors(100);
  Learn(successors, 5, {7});
  Learn(successors, 5, {});
  Learn(successors, -1, {7});
  EXPECT_THAT(successors.After(5), ElementsAre(7));
  EXPECT_THAT(successors.After(-1), IsEmpty());
}

}  // namespace
}  // namespace thimble
