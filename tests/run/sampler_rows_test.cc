// The rows of a pass with drafts: what is drawn of a tree is what single rows would have drawn, and
// what the model thinks likely is told of every row.
#include "daemon/run/sampler_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "daemon/run/likeliest.h"

namespace thimble {
namespace {

using testing::ElementsAre;

constexpr uint32_t kVocab = 300;

std::vector<float> SomeLogits(uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 100;
  return logits;
}

void Offer(LikeliestTokens& likeliest, uint32_t first_token, std::span<const float> logits) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) largest = logit > largest ? logit : largest;  // a NaN is none
  likeliest.Offer(first_token, logits, largest);
}

std::vector<int32_t> Ids(const LikeliestTokens& likeliest) {
  return {likeliest.ids().begin(), likeliest.ids().end()};
}

TEST(LikeliestTokens, AreThoseOfAFullSortHoweverTheRowIsCut) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> logits = SomeLogits(seed);  // with equal ones
    std::vector<int32_t> order(kVocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    order.resize(LikeliestTokens::kMost);
    for (const size_t tile : {size_t{1}, size_t{5}, size_t{130}, size_t{kVocab}}) {
      LikeliestTokens likeliest;
      for (size_t at = 0; at < kVocab; at += tile) {
        Offer(likeliest, static_cast<uint32_t>(at),
              std::span(logits).subspan(at, std::min(tile, kVocab - at)));
      }
      EXPECT_EQ(Ids(likeliest), order) << seed << " " << tile;
    }
  }
}

TEST(LikeliestTokens, NaNsAreNoneAndFewTokensAreAll) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  LikeliestTokens likeliest;
  Offer(likeliest, 0, std::vector<float>{nan, 2, -infinity, nan, infinity});
  EXPECT_THAT(Ids(likeliest), ElementsAre(4, 1, 2));
  likeliest.Clear();
  EXPECT_TRUE(likeliest.ids().empty());
}

class SamplerRowsTest : public testing::Test {
 protected:
  SamplerRowsTest() {
    options_.temperature = 0.9F;
    options_.top_k = 20;
    options_.repeat_penalty = 1.3F;
    options_.repeat_last_n = 8;
    options_.seed = 5;
  }

  // Logits that depend on the text.
  static std::vector<float> LogitsAfter(const std::vector<int32_t>& text) {
    uint32_t seed = 17;
    for (const int32_t token : text) seed = seed * 31 + static_cast<uint32_t>(token);
    return SomeLogits(seed);
  }
  std::vector<int32_t> TextAfter(const DraftTree& tree, uint32_t row) const {
    std::vector<int32_t> text = history_;
    std::array<int32_t, DraftTree::kMost> path{};
    tree.PathTo(row, &path);
    text.insert(text.end(), path.begin(), path.begin() + tree.Depth(row));
    return text;
  }
  // As single rows draw.
  std::vector<Sampler::Choice> OneByOne(size_t n) const {
    std::vector<Sampler::Choice> choices;
    std::vector<int32_t> text = history_;
    Sampler sampler(options_, kVocab, 0, nullptr);
    for (uint32_t i = 0; i < n; ++i) {
      sampler.Begin(i, text, {});
      EXPECT_TRUE(sampler.OnLogits(0, 0, LogitsAfter(text)).ok());
      const auto choice = sampler.Finish();
      EXPECT_TRUE(choice.ok());
      choices.push_back(*choice);
      text.push_back(choice->token);
    }
    return choices;
  }
  void Deliver(SamplerRows& rows, const DraftTree& tree, uint32_t n_rows) const {
    for (uint32_t row = 0; row < n_rows; ++row) {
      EXPECT_TRUE(rows.OnLogits(row, 0, LogitsAfter(TextAfter(tree, row))).ok());
    }
  }

  SamplingOptions options_;
  const std::vector<int32_t> history_ = {1, 2, 3, 4};
};

TEST_F(SamplerRowsTest, OfATreeTheBranchThatIsDrawnIsKept) {
  const std::vector<Sampler::Choice> expected = OneByOne(4);
  DraftTree tree;
  tree.Add(299, 0);
  const uint32_t first = tree.Add(expected[0].token, 0);
  tree.Add(298, first);
  const uint32_t second = tree.Add(expected[1].token, first);
  tree.Add(297, second);
  SamplerRows rows(options_, kVocab, 0, nullptr, 16);
  ASSERT_GE(rows.max_drafts(), tree.size);
  rows.Begin(0, history_, {}, tree);
  Deliver(rows, tree, 1 + tree.size);
  EXPECT_EQ(rows.TokensToKeep(1 + tree.size), 3U);
  EXPECT_THAT(rows.RowsToKeep(), ElementsAre(0, first, second));
  EXPECT_EQ(rows.accepted(), 2U);
  const auto choices = rows.Choices();
  ASSERT_TRUE(choices.ok());
  ASSERT_EQ(choices->size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*choices)[i].token, expected[i].token);
    EXPECT_EQ((*choices)[i].log_probability, expected[i].log_probability);
  }
}

TEST_F(SamplerRowsTest, DraftsThatThePassLeftOutAreRefused) {
  const std::vector<Sampler::Choice> expected = OneByOne(2);
  DraftTree tree;
  tree.Add(expected[0].token, 0);
  tree.Add(expected[1].token, 1);
  SamplerRows rows(options_, kVocab, 0, nullptr, 16);
  rows.Begin(0, history_, {}, tree);
  Deliver(rows, tree, 2);
  EXPECT_EQ(rows.TokensToKeep(2), 2U);
  EXPECT_EQ(rows.tried(), 1U);
  EXPECT_EQ(rows.accepted(), 1U);
  EXPECT_TRUE(rows.Likeliest(2).empty());
}

TEST_F(SamplerRowsTest, ARowThatCannotBeSampledIsComputedAgain) {
  const std::vector<Sampler::Choice> expected = OneByOne(1);
  DraftTree tree;
  tree.Add(expected[0].token, 0);
  SamplerRows rows(options_, kVocab, 0, nullptr, 16);
  rows.Begin(0, history_, {}, tree);
  Deliver(rows, tree, 1);
  const std::vector<float> nans(kVocab, std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(rows.OnLogits(1, 0, nans).ok());
  EXPECT_EQ(rows.TokensToKeep(2), 1U) << "its token is drawn, and not yet computed";
  ASSERT_TRUE(rows.Choices().ok());
  EXPECT_EQ(rows.Choices()->size(), 1U);
}

TEST_F(SamplerRowsTest, WhatIsLikelyIsToldOfRefusedRowsTooAndBeforeThePenalties) {
  DraftTree tree;
  tree.Add(299, 0);
  options_.repeat_penalty = 10;
  options_.temperature = 0;
  SamplerRows rows(options_, kVocab, 0, nullptr, 16);
  rows.Begin(0, history_, {}, tree);
  for (const uint32_t row : {0U, 1U}) {
    std::vector<float> logits(kVocab, 0.5F);
    logits[3] = 4;  // of the history
    logits[7 + row] = 3;
    EXPECT_TRUE(rows.OnLogits(row, 0, logits).ok());
  }
  rows.TokensToKeep(2);
  ASSERT_TRUE(rows.Choices().ok());
  EXPECT_EQ((*rows.Choices())[0].token, 7) << "3 is penalized";
  for (const uint32_t row : {0, 1}) {
    EXPECT_EQ(rows.Likeliest(row).size(), LikeliestTokens::kMost);
    EXPECT_EQ(rows.Likeliest(row)[0], 3);
    EXPECT_EQ(rows.Likeliest(row)[1], static_cast<int32_t>(7 + row));
  }
}

}  // namespace
}  // namespace thimble
