// Speculation in the scheduler: texts are what they are without it, and it stops where it does not
// pay.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/queue/scheduler_fixture.h"

namespace thimble {
namespace {

class DraftTest : public SchedulerTest {
 protected:
  DraftTest() {
    world_.options.max_logit_rows = 4 + 8;
    world_.options.draft_tokens = 8;
    Repeat(1);
  }

  // Texts repeat themselves the more, the less they depend on.
  void Repeat(size_t memory, uint32_t cut_every = 0) {
    world_.set_up_runner = [memory, cut_every](FakeRunner& runner) {
      runner.memory = memory;
      runner.cut_every = cut_every;
    };
  }

  struct Run {
    std::vector<std::vector<TokenId>> ids;
    std::vector<std::vector<float>> log_probabilities;
    std::vector<std::string> texts;
    std::vector<FinishReason> reasons;
    bool operator==(const Run&) const = default;
  };
  // All at once, in a world of its own; restarted after `restart_after` steps where that is not 0.
  Run RunAll(const std::vector<GenerationRequest>& requests, uint32_t draft_tokens,
             int restart_after = 0) {
    SchedulerWorld world;
    world.options = world_.options;
    world.options.clock = [&world] { return world.now += 0.001; };
    world.options.draft_tokens = draft_tokens;
    world.set_up_runner = world_.set_up_runner;
    world.tokenizer.pieces = world_.tokenizer.pieces;
    world.Restart();
    std::vector<RecordingSink> sinks(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      GenerationRequest request = requests[i];
      request.name = "r" + std::to_string(i);
      EXPECT_TRUE(world.scheduler->Submit(request, &sinks[i]).ok());
    }
    if (restart_after > 0) {
      world.Run(restart_after);
      world.Restart();
      sinks = std::vector<RecordingSink>(requests.size());
      for (size_t i = 0; i < requests.size(); ++i) {
        GenerationRequest request = requests[i];
        request.name = "r" + std::to_string(i);
        EXPECT_TRUE(world.scheduler->Submit(request, &sinks[i]).ok());
      }
    }
    world.Run();
    drafted_ = world.scheduler->status().draft_tokens_total;
    accepted_ = world.scheduler->status().draft_tokens_accepted_total;
    passes_ = world.runner->passes.size();
    branches_ += world.runner->branches;
    cuts_ += world.runner->cuts;
    Run run;
    for (const RecordingSink& sink : sinks) {
      EXPECT_TRUE(sink.done.has_value());
      if (!sink.done) continue;
      EXPECT_TRUE(sink.done->error.ok()) << sink.done->error.ToString();
      run.ids.push_back(sink.ids);
      run.log_probabilities.push_back(sink.log_probabilities);
      run.texts.push_back(sink.text);
      run.reasons.push_back(sink.done->reason);
    }
    return run;
  }

  uint64_t drafted_ = 0;  // of the last run
  uint64_t accepted_ = 0;
  size_t passes_ = 0;
  size_t branches_ = 0;  // of all runs
  size_t cuts_ = 0;
};

GenerationRequest Sampled(int32_t first, uint32_t length, uint32_t max_tokens, uint64_t seed) {
  GenerationRequest request = Drawing(first, length, max_tokens, seed);
  request.sampling.temperature = 0.7F;
  request.sampling.top_k = 5;
  request.sampling.repeat_last_n = 16;
  request.sampling.presence_penalty = 0.3F;
  return request;
}

TEST_F(DraftTest, ATextThatRepeatsItselfTakesFewerPassesThanTokens) {
  const std::vector<GenerationRequest> request = {Greedy(1, 10, 100)};
  const Run without = RunAll(request, 0);
  EXPECT_EQ(passes_, 100U);
  EXPECT_EQ(drafted_, 0U);
  EXPECT_TRUE(RunAll(request, 8) == without);
  EXPECT_LT(passes_, 60U);
  EXPECT_GT(accepted_, 40U);
  EXPECT_LE(accepted_, drafted_);
}

TEST_F(DraftTest, TextsAreTheSameGreedyAndSampledAloneAndTogether) {
  uint64_t accepted = 0;
  uint64_t refused = 0;
  for (const size_t memory : {1, 2, 3}) {
    Repeat(memory);
    const std::vector<GenerationRequest> requests = {Greedy(1, 10, 80), Sampled(2, 20, 90, 7),
                                                     Sampled(9, 33, 70, 8), Drawing(4, 5, 40, 9)};
    const Run without = RunAll(requests, 0);
    for (const uint32_t drafts : {1U, 4U, 8U, 16U}) {
      EXPECT_TRUE(RunAll(requests, drafts) == without) << memory << " " << drafts;
      accepted += accepted_;
      refused += drafted_ - accepted_;
    }
    for (const GenerationRequest& request : requests) {
      const Run alone = RunAll({request}, 0);
      EXPECT_TRUE(RunAll({request}, 8) == alone) << memory;
    }
  }
  EXPECT_GT(accepted, 100U);
  EXPECT_GT(refused, 100U);
  EXPECT_GT(branches_, 20U) << "guesses beside the first ones were right, too";
}

TEST_F(DraftTest, TextsAreTheSameWhereSomePassesHaveNoRowsForTrees) {
  for (const uint32_t cut_every : {1U, 2U, 3U}) {
    Repeat(2, cut_every);
    const std::vector<GenerationRequest> requests = {Greedy(1, 10, 80), Sampled(2, 20, 90, 7)};
    const Run without = RunAll(requests, 0);
    EXPECT_TRUE(RunAll(requests, 8) == without) << cut_every;
    EXPECT_GT(accepted_, 10U);
    EXPECT_LE(accepted_, drafted_);
  }
  EXPECT_GT(cuts_, 3U);
  EXPECT_LT(cuts_, 60U) << "once a tree was cut its request tries none for a block";
}

// Where drafts need more room than there is, the text goes on without them.
TEST_F(DraftTest, APassThatFailsWithDraftsIsTriedWithoutThem) {
  const std::vector<GenerationRequest> request = {Greedy(1, 10, 60)};
  const Run without = RunAll(request, 0);
  size_t failed = 0;
  world_.set_up_runner = [&failed](FakeRunner& runner) {
    runner.memory = 1;
    runner.fault = [&runner, &failed](const std::vector<int32_t>&) {
      if (runner.passes.back()[0].n_logits == 1) return Status();
      ++failed;
      return ResourceExhaustedError("no room for so many rows");
    };
  };
  EXPECT_TRUE(RunAll(request, 8) == without);
  EXPECT_GT(failed, 5U);
}

TEST_F(DraftTest, TextsAreTheSameAfterARestartAnywhere) {
  Repeat(2);
  const std::vector<GenerationRequest> requests = {Greedy(1, 10, 60), Sampled(2, 20, 60, 7)};
  const Run without = RunAll(requests, 0);
  for (const int steps : {5, 17, 40, 61, 77, 90}) {
    EXPECT_TRUE(RunAll(requests, 8, steps) == without) << steps;
  }
}

TEST_F(DraftTest, EndsAreWhereTheyAreWithoutDrafts) {
  Chain({1, 2, 3, 4, 5, 6});
  for (const uint32_t max_tokens : {1U, 2U, 21U, 22U, 23U, 24U, 25U}) {
    const std::vector<GenerationRequest> request = {Greedy(1, 10, max_tokens)};
    const Run without = RunAll(request, 0);
    EXPECT_EQ(without.ids[0].size(), max_tokens);
    EXPECT_TRUE(RunAll(request, 8) == without) << max_tokens;
  }
  // The context's end.
  world_.options.context_tokens = 57;
  std::vector<GenerationRequest> request = {Greedy(1, 10, 57)};
  Run without = RunAll(request, 0);
  EXPECT_EQ(without.reasons[0], FinishReason::kContext);
  EXPECT_TRUE(RunAll(request, 8) == without);
  EXPECT_GT(accepted_, 20U);
  // A stop string that is complete in the middle of accepted drafts.
  request[0].stop = {"<5><6><1><2>"};
  request[0].prompt = Greedy(1, 3, 1).prompt;
  world_.options.context_tokens = 128;
  request[0].max_tokens = 100;
  world_.set_up_runner = [](FakeRunner& runner) {
    runner.next_token = [](const std::vector<int32_t>& tokens) {
      return tokens.size() < 60 ? 1 + static_cast<int32_t>(tokens.size() % 4)
                                : 1 + static_cast<int32_t>(tokens.size() % 6);
    };
  };
  without = RunAll(request, 0);
  EXPECT_EQ(without.reasons[0], FinishReason::kStop);
  EXPECT_TRUE(RunAll(request, 8) == without);
  EXPECT_GT(accepted_, 20U);
}

TEST_F(DraftTest, TheModelsEndAmongAcceptedDraftsEndsTheText) {
  // The prompt has the end token itself, so that it is guessed.
  constexpr auto end = static_cast<int32_t>(kFakeVocab) - 1;
  GenerationRequest request = Greedy(1, 1, 60);
  request.prompt = {1, 2, 3, 4, 5, end, 7, 1};
  world_.set_up_runner = [](FakeRunner& runner) {
    runner.next_token = [](const std::vector<int32_t>& tokens) {
      if (tokens.size() < 30) return 1 + static_cast<int32_t>(tokens.size() % 3);
      const int32_t last = tokens.back();
      return last >= 5 ? end : last + 1;
    };
  };
  const Run without = RunAll({request}, 0);
  EXPECT_EQ(without.reasons[0], FinishReason::kEndOfText);
  EXPECT_TRUE(RunAll({request}, 8) == without);
  EXPECT_GT(accepted_, 5U);
}

TEST_F(DraftTest, ASlowSinkGetsEveryTokenInOrder) {
  world_.Restart();
  RecordingSink sink;
  Submit(Greedy(1, 10, 60), sink);
  for (int i = 0; i < 100000 && !sink.done; ++i) {
    sink.accepts = i % 3 == 0;
    ASSERT_TRUE(world_.scheduler->Step().ok());
  }
  ASSERT_TRUE(sink.done.has_value());
  EXPECT_EQ(sink.ids, RunAll({Greedy(1, 10, 60)}, 0).ids[0]);
  EXPECT_GT(world_.scheduler->status().draft_tokens_accepted_total, 10U);
}

// Where each row costs as much as a pass, or few guesses are right, drafts are tried and given up.
TEST_F(DraftTest, StopsWhereItDoesNotPay) {
  struct Cost {
    uint64_t drafted;
    double seconds;
  };
  world_.options.context_tokens = 2000;
  world_.options.clock = [this] { return world_.now; };
  const auto run = [&](uint32_t draft_tokens, size_t memory, double row_seconds) {
    world_.options.draft_tokens = draft_tokens;
    world_.set_up_runner = [&, memory, row_seconds](FakeRunner& runner) {
      runner.memory = memory;
      runner.on_begin = [&, row_seconds](uint32_t rows) { world_.now += 0.1 + row_seconds * rows; };
    };
    world_.Restart();
    const double begin = world_.now;
    RecordingSink sink;
    Submit(Greedy(static_cast<int32_t>(memory % 7), 10, 1000), sink);
    world_.Run();
    EXPECT_TRUE(sink.done.has_value());
    return Cost{world_.scheduler->status().draft_tokens_total, world_.now - begin};
  };
  const auto slower = [&](size_t memory, double row_seconds) {
    const double without = run(0, memory, row_seconds).seconds;
    return run(8, memory, row_seconds).seconds / without;
  };
  EXPECT_GT(run(8, 1, 0).drafted, 800U);
  EXPECT_LT(slower(1, 0), 0.3) << "right guesses, free rows";
  EXPECT_LT(run(8, 1, 10).drafted, 60U) << "right guesses, dear rows";
  EXPECT_LT(slower(1, 10), 1.03);
  // One guess in 50 is right.
  EXPECT_LT(slower(SIZE_MAX, 0.005), 1.02) << "wrong guesses, cheap rows";
  EXPECT_LT(slower(SIZE_MAX, 0.05), 1.02) << "wrong guesses, dear rows";
}

}  // namespace
}  // namespace thimble
