#include "daemon/queue/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/queue/scheduler_fixture.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(SchedulerTest, TellsARequestFromQueuedToDone) {
  world_.Restart();
  EXPECT_FALSE(world_.scheduler->HasWork());
  RecordingSink sink;
  Submit(Greedy(1, 20, 5), sink);
  EXPECT_THAT(sink.positions, ElementsAre(1));
  EXPECT_EQ(world_.scheduler->status().queued, 1U);
  world_.Run();
  EXPECT_EQ(sink.started, 20U);
  EXPECT_THAT(sink.progress, ElementsAre(16, 20));
  EXPECT_EQ(sink.ids.size(), 5U);
  ASSERT_TRUE(sink.done.has_value());
  EXPECT_EQ(sink.done->reason, FinishReason::kLength);
  EXPECT_TRUE(sink.done->error.ok());
  EXPECT_EQ(sink.done->prompt_tokens, 20U);
  EXPECT_EQ(sink.done->generated_tokens, 5U);
  EXPECT_GT(sink.done->timings.queued, 0);
  EXPECT_GT(sink.done->timings.first_token, sink.done->timings.queued);
  EXPECT_GT(sink.done->timings.total, sink.done->timings.first_token);
  EXPECT_LT(sink.done->timings.total, 0.1) << "the clock moves 1 ms a look";
  const SchedulerStatus status = world_.scheduler->status();
  EXPECT_EQ(status.active + status.queued, 0U);
  EXPECT_EQ(status.requests_total, 1U);
  EXPECT_EQ(status.prompt_tokens_total, 20U);
  EXPECT_EQ(status.generated_tokens_total, 5U);
  const auto observed = [](const Histogram& histogram) {
    return std::accumulate(histogram.counts.begin(), histogram.counts.end(), uint64_t{0});
  };
  EXPECT_EQ(observed(status.queue_seconds), 1U);
  EXPECT_DOUBLE_EQ(status.queue_seconds.sum, sink.done->timings.queued);
  EXPECT_EQ(observed(status.first_token_seconds), 1U);
  EXPECT_DOUBLE_EQ(status.first_token_seconds.sum, sink.done->timings.first_token);
  EXPECT_EQ(observed(status.token_interval_seconds), 4U) << "between five tokens";
  EXPECT_GT(status.token_interval_seconds.sum, 0);
  EXPECT_TRUE(world_.journal->Unfinished()->empty());
}

TEST_F(SchedulerTest, RefusalsNameTheFieldItsValueAndItsRange) {
  world_.Restart();
  const auto expect = [&](auto change, StatusCode code, const std::string& message) {
    GenerationRequest request = Greedy(1, 5, 5);
    change(request);
    const Status status = Refused(request);
    EXPECT_EQ(status.code(), code);
    EXPECT_EQ(status.message(), message);
  };
  using R = GenerationRequest;
  constexpr auto kInvalid = StatusCode::kInvalidArgument;
  expect([](R& r) { r.prompt.clear(); }, kInvalid, "prompt: has no tokens, at least 1 is needed");
  expect([](R& r) { r.prompt[3] = 50; }, kInvalid, "prompt token 3 is 50: must be within [0, 50)");
  expect([](R& r) { r.prompt[0] = -1; }, kInvalid, "prompt token 0 is -1: must be within [0, 50)");
  expect([](R& r) { r.max_tokens = 0; }, kInvalid, "max_tokens 0: must be within [1, 128]");
  expect([](R& r) { r.max_tokens = 129; }, kInvalid, "max_tokens 129: must be within [1, 128]");
  expect([](R& r) { r.sampling.top_p = 2; }, kInvalid, "top_p 2: must be within (0, 1]");
  expect([](R& r) { r.stop.assign(9, "x"); }, kInvalid, "stop strings 9: must be within [0, 8]");
  expect(
      [](R& r) {
        r.stop = {"a", ""};
      },
      kInvalid, "bytes of a stop string 0: must be within [1, 256]");
  expect([](R& r) { r.stop = {std::string(257, 'a')}; }, kInvalid,
         "bytes of a stop string 257: must be within [1, 256]");
  expect([](R& r) { r.name = std::string(129, 'n'); }, kInvalid,
         "bytes of request_id 129: must be within [0, 128]");
  expect([](R& r) { r.prompt.assign(128, 1); }, StatusCode::kOutOfRange,
         "prompt of 128 tokens: the context of 128 has room for a prompt of 127");
  EXPECT_FALSE(world_.scheduler->HasWork());
  EXPECT_TRUE(world_.journal->Unfinished()->empty()) << "nothing refused is journaled";
}

TEST_F(SchedulerTest, OneMoreThanTheQueueHoldsIsResourceExhausted) {
  world_.options.max_active = 1;
  world_.options.max_queue = 2;
  world_.Restart();
  std::vector<RecordingSink> sinks(3);
  for (int i = 0; i < 3; ++i) Submit(Greedy(i, 3, 2), sinks[static_cast<size_t>(i)]);
  const Status full = Refused(Greedy(9, 3, 2));
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(), "queue: 3 requests wait, for 2 places and 1 free slots");
  world_.RunUntil([&] { return world_.scheduler->status().active == 1; });
  EXPECT_EQ(Refused(Greedy(9, 3, 2)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(world_.journal->Unfinished()->size(), 3U);
  world_.Run();
  EXPECT_TRUE(Refused(Greedy(9, 3, 2)).ok());
}

TEST_F(SchedulerTest, RequestsStartInOrderAndHearTheirPositions) {
  world_.options.max_active = 1;
  world_.Restart();
  std::vector<RecordingSink> sinks(4);
  std::vector<uint64_t> numbers;
  for (size_t i = 0; i < 4; ++i) {
    numbers.push_back(Submit(Greedy(static_cast<int32_t>(i), 3, 2), sinks[i]));
  }
  EXPECT_THAT(sinks[3].positions, ElementsAre(4));
  world_.scheduler->Cancel(numbers[1]);
  EXPECT_EQ(sinks[1].done->reason, FinishReason::kCancelled);
  EXPECT_THAT(sinks[3].positions, ElementsAre(4, 3));
  world_.RunUntil([&] { return sinks[0].done.has_value(); });
  EXPECT_EQ(sinks[2].started, 0U);
  world_.RunUntil([&] { return sinks[2].done.has_value(); });
  EXPECT_EQ(sinks[3].started, 0U);
  world_.Run();
  EXPECT_TRUE(sinks[3].done.has_value());
  EXPECT_THAT(sinks[3].positions, ElementsAre(4, 3, 2, 1));
}

TEST_F(SchedulerTest, EveryPassAdvancesEachGeneratingRequestBesideALongPrompt) {
  world_.options.prompt_chunk = 8;
  world_.Restart();
  RecordingSink a, b, long_one, short_one;
  Submit(Greedy(1, 2, 40), a);
  Submit(Greedy(2, 2, 40), b);
  world_.RunUntil([&] { return !a.ids.empty() && !b.ids.empty(); });
  Submit(Greedy(3, 100, 4), long_one);
  Submit(Greedy(4, 10, 4), short_one);
  const size_t first = world_.runner->passes.size();
  const size_t had = a.ids.size();
  world_.RunUntil([&] { return !long_one.ids.empty(); });
  const size_t passes = world_.runner->passes.size() - first;
  EXPECT_EQ(a.ids.size() - had, passes);
  for (size_t i = first; i < world_.runner->passes.size(); ++i) {
    const FakeRunner::Pass& pass = world_.runner->passes[i];
    ASSERT_GE(pass.size(), 3U);
    EXPECT_EQ(pass[0].rows, 1U);
    EXPECT_EQ(pass[1].rows, 1U);
    uint32_t prompt_rows = 0;
    for (size_t j = 2; j < pass.size(); ++j) {
      if (pass[j].rows > 1) prompt_rows += pass[j].rows;
    }
    EXPECT_LE(prompt_rows, 8U);
  }
  // 110 prompt rows of 8 a pass, in turns: the short prompt does not wait for the long one.
  EXPECT_GE(short_one.ids.size(), 4U);
  EXPECT_TRUE(short_one.done.has_value());
}

TEST_F(SchedulerTest, ThePassLimitsAreKept) {
  world_.options.max_active = 6;
  world_.options.max_rows = 5;
  world_.options.max_logit_rows = 2;
  world_.Restart();
  std::vector<RecordingSink> sinks(6);
  for (size_t i = 0; i < 6; ++i) {
    Submit(Greedy(static_cast<int32_t>(i), static_cast<uint32_t>(1 + 3 * i), 6), sinks[i]);
  }
  world_.Run();
  for (const FakeRunner::Pass& pass : world_.runner->passes) {
    uint32_t rows = 0;
    uint32_t logits = 0;
    for (const FakeRunner::Row& row : pass) {
      rows += row.rows;
      logits += row.n_logits;
    }
    EXPECT_LE(rows, 5U);
    EXPECT_LE(logits, 2U);
  }
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(sinks[i].ids,
              Alone(Greedy(static_cast<int32_t>(i), static_cast<uint32_t>(1 + 3 * i), 6)));
  }
}

TEST_F(SchedulerTest, APromptHasThePlansRowsWhileAnotherRequestGenerates) {
  world_.options.max_rows = world_.options.prompt_chunk = 64;
  world_.options.shared_prompt_rows = 5;
  world_.Restart();
  RecordingSink alone, a, b;
  Submit(Greedy(1, 60, 1), alone);
  world_.Run();
  ASSERT_EQ(world_.runner->passes.size(), 1U);
  EXPECT_EQ(world_.runner->passes[0][0].rows, 60U);
  Submit(Greedy(2, 2, 40), a);
  world_.RunUntil([&] { return !a.ids.empty(); });
  Submit(Greedy(3, 60, 1), b);
  const size_t first = world_.runner->passes.size();
  world_.RunUntil([&] { return !b.ids.empty(); });
  ASSERT_EQ(world_.runner->passes.size() - first, 12U);
  for (size_t i = first; i < world_.runner->passes.size(); ++i) {
    ASSERT_EQ(world_.runner->passes[i].size(), 2U);
    EXPECT_EQ(world_.runner->passes[i][1].rows, 5U);
  }
}

TEST_F(SchedulerTest, TheTextIsTheSameAloneAndBesideOthersAndForAnyChunk) {
  const std::vector<TokenId> alone = Alone(Drawing(5, 33, 30, 99));
  ASSERT_EQ(alone.size(), 30U);
  for (const uint32_t chunk : {1U, 7U, 64U}) {
    SchedulerWorld world;
    world.options.prompt_chunk = chunk;
    world.Restart();
    std::vector<RecordingSink> sinks(4);
    for (uint64_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(world.scheduler
                      ->Submit(i == 2 ? Drawing(5, 33, 30, 99)
                                      : Drawing(static_cast<int32_t>(i), 20, 30, i),
                               &sinks[i])
                      .ok());
    }
    world.Run();
    EXPECT_EQ(sinks[2].ids, alone) << chunk;
    EXPECT_NE(sinks[1].ids, alone);
  }
}

TEST_F(SchedulerTest, AnEqualPrefixIsNotComputedAgain) {
  world_.Restart();
  RecordingSink first, second;
  Submit(Greedy(1, 70, 5), first);
  world_.Run();
  Submit(Greedy(1, 70, 5), second);
  world_.Run();
  EXPECT_EQ(first.cached, 0U);
  EXPECT_EQ(second.cached, 64U);
  EXPECT_EQ(second.done->cached_prompt_tokens, 64U);
  EXPECT_EQ(second.ids, first.ids);
  EXPECT_EQ(world_.scheduler->status().prompt_tokens_total, 76U);
}

TEST_F(SchedulerTest, AFullSinkIsLeftOutWhileOthersGoOn) {
  world_.Restart();
  RecordingSink slow, fast;
  Submit(Greedy(1, 3, 10), slow);
  Submit(Greedy(2, 3, 30), fast);
  world_.RunUntil([&] { return slow.ids.size() == 4; });
  slow.accepts = false;
  world_.RunUntil([&] { return fast.done.has_value(); });
  EXPECT_EQ(fast.ids.size(), 30U);
  // The pass that was running when it became full may still bring its token.
  EXPECT_LE(slow.ids.size(), 5U);
  EXPECT_FALSE(world_.scheduler->HasWork());
  EXPECT_TRUE(world_.scheduler->Step().ok());
  EXPECT_LE(slow.ids.size(), 5U);
  slow.accepts = true;
  EXPECT_TRUE(world_.scheduler->HasWork());
  world_.Run();
  EXPECT_EQ(slow.ids, Alone(Greedy(1, 3, 10)));
}

TEST_F(SchedulerTest, CancelFreesTheSlotAtOnceWhereverTheRequestIs) {
  world_.options.max_active = 2;
  world_.Restart();
  RecordingSink prompt, tokens, queued, other;
  const uint64_t in_prompt = Submit(Greedy(1, 100, 5), prompt);
  const uint64_t in_tokens = Submit(Greedy(2, 2, 100), tokens);
  const uint64_t in_queue = Submit(Greedy(3, 2, 5), queued);
  Submit(Greedy(4, 2, 5), other);
  world_.RunUntil([&] { return tokens.ids.size() == 2 && world_.runner->running(); });
  world_.scheduler->Cancel(in_queue);
  EXPECT_EQ(queued.done->reason, FinishReason::kCancelled);
  EXPECT_EQ(world_.runner->drops, 0U);
  world_.scheduler->Cancel(in_prompt);
  ASSERT_TRUE(prompt.done.has_value());
  EXPECT_EQ(prompt.done->reason, FinishReason::kCancelled);
  EXPECT_EQ(prompt.done->error.code(), StatusCode::kCancelled);
  EXPECT_EQ(world_.runner->drops, 1U);
  EXPECT_EQ(world_.scheduler->status().active, 1U);
  world_.scheduler->Cancel(in_tokens);
  EXPECT_EQ(tokens.done->generated_tokens, 2U);
  EXPECT_FALSE(world_.runner->running());
  EXPECT_EQ(world_.scheduler->status().active, 0U);
  world_.scheduler->Cancel(in_tokens);
  world_.scheduler->Cancel(999);
  EXPECT_EQ(world_.journal->Unfinished()->size(), 1U);
  world_.Run();
  EXPECT_EQ(other.ids, Alone(Greedy(4, 2, 5)));
}

TEST_F(SchedulerTest, AClientThatGoesEndsItsRequestUnlessDetached) {
  world_.Restart();
  RecordingSink gone, detached;
  const uint64_t a = Submit(Greedy(1, 3, 50), gone);
  GenerationRequest request = Greedy(2, 3, 10);
  request.name = "kept";
  request.detach = true;
  const uint64_t b = Submit(request, detached);
  world_.RunUntil([&] { return gone.ids.size() == 3 && world_.runner->running(); });
  world_.scheduler->ClientGone(a);
  world_.scheduler->ClientGone(b);
  world_.scheduler->ClientGone(b);
  world_.Run();
  EXPECT_EQ(gone.ids.size(), 3U);
  EXPECT_FALSE(gone.done.has_value());
  EXPECT_FALSE(detached.done.has_value());
  EXPECT_EQ(world_.journal->Load(a).status().code(), StatusCode::kNotFound);
  RecordingSink back;
  EXPECT_EQ(Submit(request, back), b);
  world_.Run();
  EXPECT_EQ(back.ids, Alone(Greedy(2, 3, 10)));
  EXPECT_EQ(back.done->reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, AFailingPassCostsOnlyTheRequestThatFailsAlone) {
  world_.set_up_runner = [](FakeRunner& runner) {
    runner.fault = [](const std::vector<int32_t>& tokens) -> Status {
      if (tokens[0] == 2 && tokens.size() >= 6) return ResourceExhaustedError("append rows: full");
      return {};
    };
  };
  world_.Restart();
  RecordingSink a, bad, c;
  Submit(Greedy(1, 3, 10), a);
  Submit(Greedy(2, 3, 10), bad);
  Submit(Greedy(3, 3, 10), c);
  world_.Run();
  ASSERT_TRUE(a.done && bad.done && c.done);
  EXPECT_EQ(bad.done->reason, FinishReason::kError);
  EXPECT_EQ(bad.done->error.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(bad.done->error.message(), "append rows: full");
  EXPECT_EQ(bad.ids.size(), 3U);
  EXPECT_EQ(a.ids, Alone(Greedy(1, 3, 10)));
  EXPECT_EQ(c.ids, Alone(Greedy(3, 3, 10)));
  EXPECT_TRUE(world_.journal->Unfinished()->empty());
}

TEST_F(SchedulerTest, AnErrorOfAllFailsAllAndTheDaemonGoesOn) {
  world_.Restart();
  bool broken = true;
  world_.runner->fault = [&](const std::vector<int32_t>&) -> Status {
    if (broken) return UnavailableError("read blk.0 at offset 0x10: Input/output error");
    return {};
  };
  RecordingSink a, b, c;
  Submit(Greedy(1, 3, 10), a);
  Submit(Greedy(2, 3, 10), b);
  world_.Run();
  ASSERT_TRUE(a.done && b.done);
  EXPECT_EQ(a.done->error.code(), StatusCode::kInternal) << "UNAVAILABLE would mean: later";
  EXPECT_THAT(b.done->error.message(), HasSubstr("Input/output error"));
  broken = false;
  Submit(Greedy(3, 3, 10), c);
  world_.Run();
  EXPECT_EQ(c.ids.size(), 10U);
}

TEST_F(SchedulerTest, OneThatIsOverTheQuotaFailsAndTheOneBesideItGoesOn) {
  world_.kv_shape = {1, 4, 64};
  world_.kv_quota_bytes = 3 * 38 * 1024;  // three blocks of 32 KiB and LMDB's part
  world_.options.max_rows = 128;
  world_.options.prompt_chunk = 128;
  world_.Restart();
  RecordingSink small, large;
  Submit(Greedy(1, 40, 30), small);  // two blocks at its end
  Submit(Greedy(2, 40, 60), large);  // three
  world_.Run();
  ASSERT_TRUE(small.done && large.done);
  EXPECT_EQ(small.done->reason, FinishReason::kLength);
  EXPECT_EQ(small.ids, Alone(Greedy(1, 40, 30)));
  EXPECT_EQ(large.done->error.code(), StatusCode::kResourceExhausted)
      << large.done->error.ToString();
  EXPECT_THAT(large.done->error.message(), HasSubstr("keys and values"));
  EXPECT_GT(world_.runner->passes.size(), 30U);
}

TEST_F(SchedulerTest, AFullKvMapFailsARequestAndTheOthersFinish) {
  size_t failed = 0;
  size_t finished = 0;
  // Three sequences of 120 KiB at a time: the smaller ones of these maps do not hold them.
  for (uint64_t map_bytes = 224 * 1024; map_bytes <= 480 * 1024; map_bytes += 64 * 1024) {
    SchedulerWorld world;
    world.cache_map_bytes = map_bytes;
    world.kv_shape = {1, 4, 64};
    world.options.max_active = 3;
    world.Restart();
    std::vector<RecordingSink> sinks(4);
    for (size_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(
          world.scheduler->Submit(Greedy(static_cast<int32_t>(i), 20, 100), &sinks[i]).ok());
    }
    world.Run();
    EXPECT_FALSE(world.scheduler->HasWork());
    for (const RecordingSink& sink : sinks) {
      ASSERT_TRUE(sink.done.has_value());
      if (sink.done->reason == FinishReason::kError) {
        EXPECT_EQ(sink.done->error.code(), StatusCode::kResourceExhausted);
        ++failed;
      } else {
        ++finished;
      }
    }
  }
  EXPECT_GT(failed, 0U);
  EXPECT_GT(finished, 0U);
}

}  // namespace
}  // namespace thimble
