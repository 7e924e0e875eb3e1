#include "daemon/queue/speculation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace thimble {
namespace {

using testing::ElementsAre;

std::vector<int32_t> Drafts(const Guess& guess) {
  const auto drafts = guess.first(guess.size);
  return {drafts.begin(), drafts.end()};
}

Guess Next(const std::vector<int32_t>& text, uint32_t limit) { return GuessNext(text, limit); }

TEST(GuessNext, IsWhatFollowedTheLongestMatch) {
  const Guess guess = Next({1, 2, 3, 4, 5, 9, 3, 7, 7, 2, 3}, 3);
  EXPECT_EQ(guess.match, 2U) << "2 3 before 4, though a 3 alone came later";
  EXPECT_THAT(Drafts(guess), ElementsAre(4, 5, 9));
}

TEST(GuessNext, OfEqualMatchesTheLatestCounts) {
  const Guess guess = Next({5, 1, 5, 2, 5}, 1);
  EXPECT_EQ(guess.match, 1U);
  EXPECT_THAT(Drafts(guess), ElementsAre(2));
}

TEST(GuessNext, ATextThatRepeatsItselfGoesOnSo) {
  EXPECT_THAT(Drafts(Next({1, 2, 3, 1, 2}, 7)), ElementsAre(3, 1, 2, 3, 1, 2, 3));
  EXPECT_THAT(Drafts(Next({4, 4}, 4)), ElementsAre(4, 4, 4, 4));
}

TEST(GuessNext, HasNothingToSayOfANewTokenOrWithoutRoom) {
  EXPECT_EQ(Next({}, 4).size, 0U);
  EXPECT_EQ(Next({1}, 4).size, 0U);
  EXPECT_EQ(Next({1, 2, 3}, 4).size, 0U);
  EXPECT_EQ(Next({1, 1}, 0).size, 0U);
  EXPECT_EQ(Next({1, 1}, 1000).size, kMaxDrafts);
}

TEST(GuessRecord, LearnsFromWhatWasDrawnUpToTheFirstWrongDraft) {
  Guess guess = Next({1, 2, 3, 9, 1}, 3);  // 2 3 9 from a match of one
  GuessRecord record;
  const float first = record.Chance(guess, 0);
  const float second = record.Chance(guess, 1);
  const float third = record.Chance(guess, 2);
  const std::vector<int32_t> drawn = {2, 5, 9};
  record.Observe(guess, drawn);
  EXPECT_GT(record.Chance(guess, 0), first);
  EXPECT_LT(record.Chance(guess, 1), second);
  EXPECT_EQ(record.Chance(guess, 2), third) << "it stood on a wrong one";
  for (int i = 0; i < 100; ++i) record.Observe(guess, drawn);
  EXPECT_GT(record.Chance(guess, 0), 0.95F);
  EXPECT_LT(record.Chance(guess, 1), 0.05F);
}

TEST(PassCost, IsMeasuredBetweenMeasuresOnTheLineAndAboveThemFlat) {
  PassCost cost;
  EXPECT_EQ(cost.Seconds(1), 0);
  cost.Observe(1, 2);
  EXPECT_EQ(cost.Seconds(1), 2);
  EXPECT_EQ(cost.Seconds(9), 2) << "untried: as cheap as can be";
  cost.Observe(9, 4);
  EXPECT_EQ(cost.Seconds(5), 3);
  EXPECT_EQ(cost.Seconds(300), 4);
  cost.Observe(200, 10);
  EXPECT_GT(cost.Seconds(100), 4);
  EXPECT_LT(cost.Seconds(100), 10);
}

TEST(PassCost, OnePassThatWasHeldUpCountsLittleAndOldMeasuresAreForgotten) {
  PassCost cost;
  for (int i = 0; i < 10; ++i) cost.Observe(1, 1);
  cost.Observe(1, 9);
  EXPECT_LE(cost.Seconds(1), 2);
  for (int i = 0; i < 4; ++i) cost.Observe(1, 1);
  EXPECT_LT(cost.Seconds(1), 1.1);
  cost.Observe(9, 50);
  EXPECT_EQ(cost.Seconds(9), 50);
  for (int i = 0; i < 600; ++i) cost.Observe(1, 1);
  EXPECT_LT(cost.Seconds(9), 1.1);
}

struct Offers {
  explicit Offers(size_t n, uint32_t limit = 8) : guesses(n), records(n) {
    for (size_t i = 0; i < n; ++i) {
      guesses[i] = Next({1, 2, 3, 1, 2}, 8);
      offers.push_back({&guesses[i], &records[i], limit});
    }
  }
  // What was always right, or always wrong, so far.
  void Learn(size_t i, bool right) {
    std::vector<int32_t> drawn = Drafts(guesses[i]);
    if (!right) drawn.assign(1, -1);
    for (int n = 0; n < 100; ++n) records[i].Observe(guesses[i], drawn);
  }
  uint32_t granted() const {
    uint32_t sum = 0;
    for (const DraftOffer& offer : offers) sum += offer.granted;
    return sum;
  }
  std::vector<Guess> guesses;
  std::vector<GuessRecord> records;
  std::vector<DraftOffer> offers;
};

TEST(GrantDrafts, NoneBeforeAPassWasMeasured) {
  Offers offers(1);
  offers.Learn(0, true);
  GrantDrafts(offers.offers, 1, 8, PassCost());
  EXPECT_EQ(offers.granted(), 0U);
}

TEST(GrantDrafts, AllThatAreLikelyWhereRowsAreFree) {
  PassCost cost;
  cost.Observe(1, 1);
  cost.Observe(9, 1.01);
  Offers right(1);
  right.Learn(0, true);
  GrantDrafts(right.offers, 1, 8, cost);
  EXPECT_EQ(right.granted(), 8U);
  GrantDrafts(right.offers, 1, 5, cost);
  EXPECT_EQ(right.granted(), 5U) << "the room";
  Offers wrong(1);
  wrong.Learn(0, false);
  GrantDrafts(wrong.offers, 1, 8, cost);
  EXPECT_EQ(wrong.granted(), 0U);
}

TEST(GrantDrafts, NoneWhereARowCostsAsMuchAsAPass) {
  PassCost cost;
  cost.Observe(1, 1);
  cost.Observe(9, 9);
  Offers offers(1);
  offers.Learn(0, true);
  GrantDrafts(offers.offers, 1, 8, cost);
  EXPECT_EQ(offers.granted(), 0U);
}

TEST(GrantDrafts, AsManyAsPayWhereARowCostsAPartOfAPass) {
  PassCost cost;
  for (uint32_t rows = 1; rows <= 12; ++rows)
    cost.Observe(rows, rows <= 4 ? 1 : 1 + 0.9 * (rows - 4));
  Offers offers(1);
  offers.Learn(0, true);
  GrantDrafts(offers.offers, 1, 8, cost);
  EXPECT_EQ(offers.granted(), 3U) << "four rows are as cheap as one";
}

TEST(GrantDrafts, TheLikelierGuessesGetTheRoom) {
  PassCost cost;
  cost.Observe(3, 1);
  Offers offers(3, 4);
  offers.Learn(0, false);
  offers.Learn(1, true);
  GrantDrafts(offers.offers, 3, 6, cost);
  EXPECT_EQ(offers.offers[0].granted, 0U);
  EXPECT_EQ(offers.offers[1].granted, 4U);
  EXPECT_GE(offers.offers[2].granted, 1U);
}

}  // namespace
}  // namespace thimble
