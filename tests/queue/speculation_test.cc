#include "daemon/queue/speculation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace thimble {
namespace {

using testing::ElementsAre;

std::vector<int32_t> Drafts(const Guess& guess) {
  return {guess.tokens.begin(), guess.tokens.begin() + guess.size};
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
  const Successors successors(1000);
  GuessRecord record;
  const float first = record.Chance(guess, 0);
  const float second = record.Chance(guess, 1);
  const float third = record.Chance(guess, 2);
  const std::vector<int32_t> drawn = {2, 5, 9};
  record.Observe(guess, successors, 1, drawn);
  EXPECT_GT(record.Chance(guess, 0), first);
  EXPECT_LT(record.Chance(guess, 1), second);
  EXPECT_EQ(record.Chance(guess, 2), third) << "it stood on a wrong one";
  for (int i = 0; i < 100; ++i) record.Observe(guess, successors, 1, drawn);
  EXPECT_GT(record.Chance(guess, 0), 0.95F);
  EXPECT_LT(record.Chance(guess, 1), 0.05F);
}

TEST(GuessRecord, LearnsFromTheSuccessorsOfEachTokenByTheirRank) {
  Successors successors(1000);
  successors.Learn(1, std::vector<int32_t>{7, 8, 9});
  successors.Learn(8, std::vector<int32_t>{5, 6});
  GuessRecord record;
  const GuessRecord before;
  const std::vector<int32_t> drawn = {8, 5};
  for (int i = 0; i < 200; ++i) record.Observe({}, successors, 1, drawn);
  EXPECT_NEAR(record.RankChance(0), 0.5F, 0.05F) << "wrong behind 1, right behind 8";
  EXPECT_NEAR(record.RankChance(1), 0.5F, 0.05F);
  EXPECT_LT(record.RankChance(2), 0.01F);
  EXPECT_EQ(record.RankChance(3), before.RankChance(3)) << "none was known";
  // What the text guesses is that guess's.
  Guess guess = Next({1, 7, 1}, 1);
  GuessRecord other;
  other.Observe(guess, successors, 1, std::vector<int32_t>{7});
  EXPECT_GT(other.Chance(guess, 0), before.Chance(guess, 0));
  EXPECT_EQ(other.RankChance(0), before.RankChance(0));
  EXPECT_LT(other.RankChance(1), before.RankChance(1));
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
  explicit Offers(size_t n, uint32_t limit = 8) : guesses(n), records(n), trees(n) {
    for (size_t i = 0; i < n; ++i) {
      guesses[i] = Next({1, 2, 3, 1, 2}, 8);
      offers.push_back({&guesses[i], &records[i], 2, limit, false, &trees[i]});
    }
  }
  // What was always right, or always wrong, so far.
  void Learn(size_t i, bool right) {
    std::vector<int32_t> drawn = Drafts(guesses[i]);
    if (!right) drawn.assign(1, -1);
    for (int n = 0; n < 100; ++n) records[i].Observe(guesses[i], Successors(1000), 2, drawn);
  }
  void Grant(uint32_t rows, uint32_t room, const PassCost& cost) {
    DraftGrants grants(static_cast<uint32_t>(offers.size()), room);
    grants.Grant(offers, successors, rows, room, cost);
  }
  uint32_t granted() const {
    uint32_t sum = 0;
    for (const DraftTree& tree : trees) sum += tree.size;
    return sum;
  }
  Successors successors{1000};
  std::vector<Guess> guesses;
  std::vector<GuessRecord> records;
  std::vector<DraftTree> trees;
  std::vector<DraftOffer> offers;
};

PassCost FreeRows() {
  PassCost cost;
  cost.Observe(1, 1);
  cost.Observe(9, 1.01);
  return cost;
}

TEST(DraftGrants, NoneBeforeAPassWasMeasured) {
  Offers offers(1);
  offers.Learn(0, true);
  offers.Grant(1, 8, PassCost());
  EXPECT_EQ(offers.granted(), 0U);
}

TEST(DraftGrants, AllThatAreLikelyWhereRowsAreFree) {
  Offers right(1);
  right.Learn(0, true);
  right.Grant(1, 8, FreeRows());
  EXPECT_EQ(right.granted(), 8U);
  EXPECT_EQ(right.trees[0].ChainSize(), 8U);
  right.Grant(1, 5, FreeRows());
  EXPECT_EQ(right.granted(), 5U) << "the room";
  Offers wrong(1);
  wrong.Learn(0, false);
  wrong.Grant(1, 8, FreeRows());
  EXPECT_EQ(wrong.granted(), 0U);
}

TEST(DraftGrants, NoneWhereARowCostsAsMuchAsAPass) {
  PassCost cost;
  cost.Observe(1, 1);
  cost.Observe(9, 9);
  Offers offers(1);
  offers.Learn(0, true);
  offers.successors.Learn(2, std::vector<int32_t>{7, 8, 9});
  offers.Grant(1, 8, cost);
  EXPECT_EQ(offers.granted(), 0U);
}

TEST(DraftGrants, AsManyAsPayWhereARowCostsAPartOfAPass) {
  PassCost cost;
  for (uint32_t rows = 1; rows <= 12; ++rows)
    cost.Observe(rows, rows <= 4 ? 1 : 1 + 0.9 * (rows - 4));
  Offers offers(1);
  offers.Learn(0, true);
  offers.Grant(1, 8, cost);
  EXPECT_EQ(offers.granted(), 3U) << "four rows are as cheap as one";
}

TEST(DraftGrants, TheLikelierGuessesGetTheRoom) {
  PassCost cost;
  cost.Observe(3, 1);
  Offers offers(3, 4);
  offers.Learn(0, false);
  offers.Learn(1, true);
  offers.Grant(3, 6, cost);
  EXPECT_EQ(offers.trees[0].size, 0U);
  EXPECT_EQ(offers.trees[1].size, 4U);
  EXPECT_GE(offers.trees[2].size, 1U);
}

TEST(DraftGrants, WhereTheTextSaysNothingTheSuccessorsOfATokenAreTriedBesideEachOther) {
  Offers offers(1);
  offers.guesses[0] = {};
  offers.successors.Learn(2, std::vector<int32_t>{7, 8});
  offers.successors.Learn(7, std::vector<int32_t>{5});
  offers.Grant(1, 8, FreeRows());
  const DraftTree& tree = offers.trees[0];
  ASSERT_EQ(tree.size, 3U);
  EXPECT_NE(tree.Child(0, 7, 3), 0U);
  EXPECT_NE(tree.Child(0, 8, 3), 0U);
  EXPECT_NE(tree.Child(tree.Child(0, 7, 3), 5, 3), 0U);
}

TEST(DraftGrants, WhereRowsMayHaveToBeWrittenThereIsTheGuessFromTheTextAlone) {
  Offers offers(1);
  offers.successors.Learn(2, std::vector<int32_t>{7, 8});
  offers.offers[0].chain = true;
  offers.Grant(1, 8, FreeRows());
  const DraftTree& tree = offers.trees[0];
  EXPECT_GT(tree.size, 0U);
  EXPECT_LT(tree.size, 4U) << "the likelier ones";
  EXPECT_EQ(tree.ChainSize(), tree.size);
  EXPECT_EQ(tree.tokens[0], 3);
}

TEST(DraftGrants, BesideTheGuessFromTheTextOthersStand) {
  Offers offers(1);
  offers.successors.Learn(2, std::vector<int32_t>{3, 9});  // 3 is the guess, too
  offers.Grant(1, 8, FreeRows());
  const DraftTree& tree = offers.trees[0];
  ASSERT_GT(tree.size, 2U);
  EXPECT_EQ(tree.tokens[0], 3);
  uint32_t threes = 0;
  for (uint32_t row = 1; row <= tree.size; ++row) {
    threes += tree.Parent(row) == 0 && tree.tokens[row - 1] == 3 ? 1 : 0;
  }
  EXPECT_EQ(threes, 1U) << "no draft is tried twice";
  EXPECT_NE(tree.Child(0, 9, tree.size), 0U);
}

}  // namespace
}  // namespace thimble
