#include "daemon/queue/pass_composer.h"

#include <gtest/gtest.h>

#include <map>

namespace thimble {
namespace {

using Candidates = std::vector<PassCandidate>;

std::map<uint64_t, uint32_t> Compose(PassComposer& composer, const Candidates& candidates) {
  std::vector<PassShare> shares;
  composer.Compose(candidates, &shares);
  std::map<uint64_t, uint32_t> rows;
  for (const PassShare& share : shares) {
    const PassCandidate& c = candidates[share.candidate];
    EXPECT_EQ(share.wants_logits, share.rows == c.pending);
    EXPECT_GT(share.rows, 0U);
    EXPECT_FALSE(rows.contains(c.number));
    rows[c.number] = share.rows;
  }
  return rows;
}

using Rows = std::map<uint64_t, uint32_t>;

TEST(PassComposer, NothingToDoIsNoPass) {
  PassComposer composer({8, 4, 8});
  EXPECT_EQ(Compose(composer, {}), Rows{});
}

TEST(PassComposer, WhatHasNothingPendingIsPassedOver) {
  PassComposer composer({8, 4, 8});
  EXPECT_EQ(Compose(composer, {{1, 0}}), Rows{});
  EXPECT_EQ(Compose(composer, {{1, 1}, {2, 0}, {3, 20}}), (Rows{{1, 1}, {3, 7}}));
}

TEST(PassComposer, APromptHasFewerRowsWhileTokensOfOthersWaitForThem) {
  PassComposer composer(
      {.max_rows = 64, .max_logit_rows = 4, .prompt_chunk = 48, .shared_prompt_rows = 5});
  EXPECT_EQ(Compose(composer, {{1, 100}}), (Rows{{1, 48}}));
  EXPECT_EQ(Compose(composer, {{1, 100}, {2, 1}}), (Rows{{1, 5}, {2, 1}}));
  EXPECT_EQ(Compose(composer, {{1, 3}, {2, 1}, {3, 100}}), (Rows{{2, 1}, {3, 5}}));
  EXPECT_EQ(Compose(composer, {{1, 3}, {2, 1}, {3, 100}}), (Rows{{1, 3}, {2, 1}, {3, 2}}));
  EXPECT_EQ(Compose(composer, {{1, 100}, {3, 100}}), (Rows{{3, 48}}));
}

TEST(PassComposer, TokensComeFirstAndAPromptTakesTheRest) {
  PassComposer composer({8, 4, 8});
  EXPECT_EQ(Compose(composer, {{1, 1}, {2, 50}, {3, 1}}), (Rows{{1, 1}, {2, 6}, {3, 1}}));
}

TEST(PassComposer, PromptsTakeTurnsAndShareWhatAShortOneLeaves) {
  PassComposer composer({16, 4, 10});
  EXPECT_EQ(Compose(composer, {{1, 100}, {2, 4}}), (Rows{{1, 10}}));
  EXPECT_EQ(Compose(composer, {{1, 90}, {2, 4}}), (Rows{{2, 4}, {1, 6}}));
  EXPECT_EQ(Compose(composer, {{1, 84}, {2, 1}, {3, 40}}), (Rows{{2, 1}, {3, 10}}));
  EXPECT_EQ(Compose(composer, {{1, 84}, {2, 1}, {3, 30}}), (Rows{{1, 10}, {2, 1}}));
}

TEST(PassComposer, APromptThatIsNotDoneStopsWhereABlockDoes) {
  PassComposer composer({20, 4, 20, 8});
  // Of 20 rows 16 are two blocks; the next prompt's four would be none.
  EXPECT_EQ(Compose(composer, {{1, 100}, {2, 50}}), (Rows{{1, 16}}));
  // From the third token on the first block ends with the eighth.
  EXPECT_EQ(Compose(composer, {{1, 84, 16}, {2, 50, 3}}), (Rows{{2, 13}}));
  // One that ends here has all its rows, what is left of them goes to whole blocks again.
  EXPECT_EQ(Compose(composer, {{1, 7, 96}, {2, 37, 16}}), (Rows{{1, 7}, {2, 8}}));
}

TEST(PassComposer, AShortRestOfRowsGoesToAnotherPromptOnlyWhereABlockEnds) {
  PassComposer composer({20, 4, 20, 8});
  EXPECT_EQ(Compose(composer, {{1, 17}, {2, 50, 16}}), (Rows{{1, 17}})) << "three rows end none";
  EXPECT_EQ(Compose(composer, {{2, 17, 49}, {3, 50, 6}}), (Rows{{2, 17}, {3, 2}}));
}

TEST(PassComposer, APromptGetsOnWhereNoBlockEnds) {
  PassComposer composer({20, 1, 20, 8});
  // The one row of logits is taken: its last token waits, and the four before it end no block.
  EXPECT_EQ(Compose(composer, {{1, 1, 40}, {2, 5, 0}}), (Rows{{1, 1}, {2, 4}}));
}

// Without a ceiling a pass has 32 rows, of which others take one each.
TEST(PassComposer, FewRowsAreAllUsedWhereverBlocksEnd) {
  PassComposer composer({32, 4, 32, 32});
  uint32_t done = 0;
  for (int pass = 0; pass < 8; ++pass) {
    EXPECT_EQ(Compose(composer, {{1, 1, 40}, {2, 900 - done, done}}), (Rows{{1, 1}, {2, 31}}));
    done += 31;
  }
}

TEST(PassComposer, TooFewRowsGoRound) {
  PassComposer composer({2, 4, 8});
  const Candidates three = {{1, 1}, {2, 1}, {3, 1}};
  std::map<uint64_t, int> served;
  for (int pass = 0; pass < 30; ++pass) {
    for (const auto& [number, rows] : Compose(composer, three)) served[number] += 1;
  }
  EXPECT_EQ(served, (std::map<uint64_t, int>{{1, 20}, {2, 20}, {3, 20}}));
}

TEST(PassComposer, APromptKeepsARowBesideTooManyTokens) {
  for (const uint32_t max_rows : {1U, 2U, 3U}) {
    PassComposer composer({max_rows, 4, 8});
    uint32_t pending = 20;
    int passes = 0;
    for (; pending > 1 && passes < 100; ++passes) {
      for (const auto& [number, rows] : Compose(composer, {{1, 1}, {2, 1}, {3, 1}, {4, pending}})) {
        if (number == 4) pending -= rows;
      }
    }
    EXPECT_EQ(pending, 1U) << max_rows;
    EXPECT_LE(passes, max_rows == 1 ? 38 : 19);
  }
}

TEST(PassComposer, WithoutALogitsRowThePromptsLastTokenWaits) {
  PassComposer composer({16, 1, 16});
  EXPECT_EQ(Compose(composer, {{1, 1}, {2, 6}}), (Rows{{1, 1}, {2, 5}}));
  EXPECT_EQ(Compose(composer, {{1, 1}, {2, 1}}), (Rows{{2, 1}}));
  EXPECT_EQ(Compose(composer, {{1, 1}, {2, 1}}), (Rows{{1, 1}}));
  EXPECT_EQ(Compose(composer, {{1, 3}, {2, 3}}).size(), 2U);
}

}  // namespace
}  // namespace thimble
