// Requests that outlive their client, or the daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "daemon/queue/request_record.h"
#include "tests/queue/fakes.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ResumeTest : public testing::Test {
 protected:
  static GenerationRequest Named(const std::string& name, GenerationRequest request) {
    request.name = name;
    request.detach = true;
    return request;
  }
  void Uninterrupted(const GenerationRequest& request, RecordingSink& sink) {
    SchedulerWorld world;
    world.tokenizer.pieces = world_.tokenizer.pieces;
    world.Restart();
    ASSERT_TRUE(world.scheduler->Submit(request, &sink).ok());
    world.Run();
    ASSERT_TRUE(sink.done.has_value());
  }
  Result<uint64_t> Submit(const GenerationRequest& request, RecordingSink& sink) {
    return world_.scheduler->Submit(request, &sink);
  }

  SchedulerWorld world_;
};

TEST_F(ResumeTest, ARestartAnywhereGivesTheSameTokensAndText) {
  world_.tokenizer.pieces = {{3, "\xC3"}, {4, "\xBC"}, {5, "ab"}, {6, "ba"}};
  GenerationRequest request = Named("story", Drawing(3, 45, 30, 7));
  request.stop = {"aab<1>"};
  RecordingSink whole;
  Uninterrupted(request, whole);
  ASSERT_GT(whole.ids.size(), 5U);
  for (int kill_after = 1; kill_after < 80; kill_after += 3) {
    SchedulerWorld world;
    world.tokenizer.pieces = world_.tokenizer.pieces;
    world.Restart();
    RecordingSink before, after;
    ASSERT_TRUE(world.scheduler->Submit(request, &before).ok());
    world.Run(kill_after);
    world.Restart();
    ASSERT_TRUE(world.scheduler->Submit(request, &after).ok());
    world.Run();
    ASSERT_TRUE(after.done.has_value());
    EXPECT_EQ(after.ids, whole.ids) << kill_after;
    EXPECT_EQ(after.text, whole.text);
    EXPECT_EQ(after.log_probabilities, whole.log_probabilities);
    EXPECT_EQ(after.done->reason, whole.done->reason);
    EXPECT_EQ(after.done->generated_tokens, whole.done->generated_tokens);
    EXPECT_TRUE(std::equal(before.ids.begin(), before.ids.end(), whole.ids.begin()))
        << "nothing told is taken back";
  }
}

TEST_F(ResumeTest, UnfinishedRequestsGoOnInOrderWithoutAClient) {
  world_.options.max_active = 1;
  world_.options.max_queue = 5;
  world_.Restart();
  std::vector<RecordingSink> sinks(3);
  std::vector<uint64_t> numbers;
  for (size_t i = 0; i < 3; ++i) {
    const auto number =
        Submit(Named("r" + std::to_string(i), Greedy(static_cast<int32_t>(i), 3, 4)), sinks[i]);
    ASSERT_TRUE(number.ok());
    numbers.push_back(*number);
  }
  world_.Run(7);
  world_.options.max_queue = 0;
  world_.Restart();
  EXPECT_EQ(world_.scheduler->status().queued, 3U);
  for (const uint64_t number : numbers) {
    EXPECT_FALSE(world_.journal->Load(number)->outcome.has_value());
    while (!world_.journal->Load(number)->outcome) {
      ASSERT_TRUE(world_.scheduler->HasWork());
      ASSERT_TRUE(world_.scheduler->Step().ok());
    }
    EXPECT_EQ(world_.journal->Load(number)->tokens.size(), 8U);
  }
  EXPECT_FALSE(world_.scheduler->HasWork());
}

TEST_F(ResumeTest, AClientThatComesBackMayChangeItsMindAboutDetach) {
  world_.Restart();
  GenerationRequest request = Named("x", Greedy(1, 3, 6));
  request.detach = true;
  RecordingSink first;
  const auto number = Submit(request, first);
  ASSERT_TRUE(number.ok());
  world_.Run(3);
  world_.scheduler->ClientGone(*number);
  request.detach = false;
  RecordingSink second;
  ASSERT_TRUE(Submit(request, second).ok()) << "the same request, detached or not";
  world_.scheduler->ClientGone(*number);
  EXPECT_FALSE(world_.scheduler->HasWork()) << "no longer detached: it ends with its client";
  RecordingSink third;
  ASSERT_TRUE(Submit(request, third).ok());
  world_.Run();
  EXPECT_EQ(third.done->reason, FinishReason::kLength);
  RecordingSink fourth;
  request.detach = true;
  ASSERT_TRUE(Submit(request, fourth).ok()) << "its result is kept for either";
  world_.Run();
  EXPECT_EQ(fourth.ids, third.ids);
}

TEST_F(ResumeTest, AnEndThatWasNotRecordedIsFoundAgain) {
  world_.Restart();
  const GenerationRequest request = Named("x", Greedy(1, 3, 2));
  const auto number = world_.journal->Accept("x", EncodeRequest(request, world_.model.fingerprint));
  ASSERT_TRUE(number.ok());
  std::vector<int32_t> ints;
  AppendTokenInts(5, -1.5F, &ints);
  AppendTokenInts(6, -2.5F, &ints);
  const std::vector<Journal::Emitted> emitted = {{*number, 0, ints}};
  ASSERT_TRUE(world_.journal->AppendTokens(emitted).ok());
  world_.Restart();
  EXPECT_TRUE(world_.journal->Unfinished()->empty());
  EXPECT_FALSE(world_.scheduler->HasWork());
  RecordingSink sink;
  ASSERT_TRUE(Submit(request, sink).ok());
  world_.Run();
  EXPECT_THAT(sink.ids, ElementsAre(5, 6));
  EXPECT_THAT(sink.log_probabilities, ElementsAre(-1.5F, -2.5F));
  EXPECT_EQ(sink.done->reason, FinishReason::kLength);
}

TEST_F(ResumeTest, AClientMayComeBackWhileQueuedActiveOrDone) {
  world_.options.max_active = 1;
  world_.Restart();
  const GenerationRequest request = Named("x", Greedy(1, 3, 20));
  RecordingSink other, queued, active, ended, expected;
  Uninterrupted(request, expected);
  ASSERT_TRUE(Submit(Greedy(9, 3, 3), other).ok());
  RecordingSink first;
  const uint64_t number = *Submit(request, first);
  world_.scheduler->ClientGone(number);
  EXPECT_EQ(*Submit(request, queued), number);
  EXPECT_THAT(queued.positions, ElementsAre(2));
  world_.RunUntil([&] { return queued.ids.size() == 4; });
  world_.scheduler->ClientGone(number);
  EXPECT_EQ(*Submit(request, active), number);
  EXPECT_EQ(active.started, 3U);
  world_.RunUntil([&] { return active.ids.size() == 15; });
  world_.scheduler->ClientGone(number);
  world_.Run();
  EXPECT_EQ(*Submit(request, ended), number);
  EXPECT_TRUE(world_.scheduler->HasWork());
  world_.Run();
  EXPECT_EQ(ended.ids, expected.ids);
  EXPECT_EQ(ended.text, expected.text);
  EXPECT_EQ(ended.log_probabilities, expected.log_probabilities);
  EXPECT_EQ(ended.done->reason, FinishReason::kLength);
  EXPECT_EQ(ended.done->generated_tokens, 20U);
  EXPECT_TRUE(std::equal(active.ids.begin(), active.ids.end(), expected.ids.begin()));
  EXPECT_EQ(queued.ids.size(), 4U);
  EXPECT_FALSE(queued.done.has_value());
  EXPECT_EQ(world_.scheduler->status().requests_total, 2U);
}

TEST_F(ResumeTest, ReplayWaitsForASlowClient) {
  world_.Restart();
  const GenerationRequest request = Named("x", Greedy(1, 3, 100));
  RecordingSink first, back;
  const uint64_t number = *Submit(request, first);
  world_.RunUntil([&] { return first.ids.size() == 50; });
  world_.scheduler->ClientGone(number);
  back.accepts = false;
  ASSERT_TRUE(Submit(request, back).ok());
  world_.Run();
  EXPECT_TRUE(back.ids.empty());
  EXPECT_FALSE(world_.scheduler->HasWork());
  back.accepts = true;
  EXPECT_TRUE(world_.scheduler->HasWork());
  ASSERT_TRUE(world_.scheduler->Step().ok());
  EXPECT_GT(back.ids.size(), 0U);
  EXPECT_LT(back.ids.size(), 50U) << "a step tells only so many";
  world_.Run();
  EXPECT_EQ(back.ids.size(), 100U);
  EXPECT_TRUE(back.done.has_value());
  // And once more from the journal, going away in the middle.
  RecordingSink again;
  ASSERT_TRUE(Submit(request, again).ok());
  ASSERT_TRUE(world_.scheduler->Step().ok());
  world_.scheduler->ClientGone(number);
  EXPECT_FALSE(world_.scheduler->HasWork());
  RecordingSink last;
  ASSERT_TRUE(Submit(request, last).ok());
  world_.scheduler->Cancel(number);
  EXPECT_EQ(last.done->reason, FinishReason::kCancelled);
  RecordingSink really_last;
  ASSERT_TRUE(Submit(request, really_last).ok());
  world_.Run();
  EXPECT_EQ(really_last.ids, back.ids);
}

TEST_F(ResumeTest, ASecondClientOrAnotherRequestOfTheNameIsRefused) {
  world_.Restart();
  const GenerationRequest request = Named("x", Greedy(1, 3, 20));
  GenerationRequest changed = request;
  changed.sampling.seed = 1;
  RecordingSink first, second;
  ASSERT_TRUE(Submit(request, first).ok());
  const auto expect_refused = [&](const GenerationRequest& r, const std::string& why) {
    const Status status = Submit(r, second).status();
    EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
    EXPECT_THAT(status.message(), HasSubstr(why));
  };
  expect_refused(request, "request \"x\": another client is being told");
  expect_refused(changed, "with another prompt, options or model");
  world_.Run();
  expect_refused(changed, "with another prompt, options or model");
  RecordingSink third;
  ASSERT_TRUE(Submit(request, third).ok());
  expect_refused(request, "another client is being told");
  world_.Run();
  EXPECT_EQ(third.ids, first.ids);
}

TEST_F(ResumeTest, CancelledNamesAndToldErrorsMayBeUsedAgain) {
  world_.Restart();
  bool broken = false;
  world_.runner->fault = [&](const std::vector<int32_t>&) -> Status {
    if (broken) return DataLossError("broken");
    return {};
  };
  const GenerationRequest request = Named("x", Greedy(1, 3, 5));
  RecordingSink cancelled, failed, gone, back, good;
  world_.scheduler->Cancel(*Submit(request, cancelled));
  broken = true;
  ASSERT_TRUE(Submit(request, failed).ok());
  world_.Run();
  EXPECT_EQ(failed.done->error.code(), StatusCode::kDataLoss);
  // An error nobody was told of is kept for the client that asks.
  const uint64_t number = *Submit(request, gone);
  world_.scheduler->ClientGone(number);
  world_.Run();
  EXPECT_EQ(*Submit(request, back), number);
  world_.Run();
  EXPECT_EQ(back.done->error.message(), "broken");
  broken = false;
  EXPECT_NE(*Submit(request, good), number);
  world_.Run();
  EXPECT_EQ(good.ids.size(), 5U);
}

TEST_F(ResumeTest, RequestsOfAnotherModelWaitForIt) {
  world_.Restart();
  const GenerationRequest request = Named("x", Greedy(1, 3, 20));
  RecordingSink first, second, third;
  ASSERT_TRUE(Submit(request, first).ok());
  world_.RunUntil([&] { return first.ids.size() == 5; });
  world_.model.fingerprint = {9};
  world_.Restart();
  EXPECT_FALSE(world_.scheduler->HasWork());
  EXPECT_EQ(Submit(request, second).status().code(), StatusCode::kAlreadyExists);
  world_.model.fingerprint = {1, 2, 3};
  world_.Restart();
  EXPECT_TRUE(world_.scheduler->HasWork());
  ASSERT_TRUE(Submit(request, third).ok());
  world_.Run();
  EXPECT_EQ(third.ids.size(), 20U);
}

TEST_F(ResumeTest, UnreadableRecordsEndWithDataLossAndTheRestGoesOn) {
  world_.Restart();
  ASSERT_TRUE(world_.journal->Accept("bad", "nonsense").ok());
  const GenerationRequest request = Named("odd", Greedy(1, 3, 20));
  const auto odd = world_.journal->Accept("odd", EncodeRequest(request, world_.model.fingerprint));
  const std::vector<int32_t> ints = {1, 2, 3};
  const std::vector<Journal::Emitted> emitted = {{*odd, 0, ints}};
  ASSERT_TRUE(world_.journal->AppendTokens(emitted).ok());
  RecordingSink good;
  ASSERT_TRUE(Submit(Named("good", Greedy(2, 3, 4)), good).ok());
  world_.Restart();
  EXPECT_EQ(world_.scheduler->status().queued, 1U);
  for (const char* name : {"bad", "odd"}) {
    RecordingSink sink;
    EXPECT_EQ(Submit(Named(name, Greedy(1, 3, 20)), sink).status().code(), StatusCode::kDataLoss);
    EXPECT_TRUE(Submit(Named(name, Greedy(1, 3, 20)), sink).ok()) << "told once, then free";
    world_.Run();
    EXPECT_EQ(sink.ids.size(), 20U);
  }
}

TEST_F(ResumeTest, ASmallerContextEndsWhatNoLongerFits) {
  world_.Restart();
  const GenerationRequest fits = Named("fits", Greedy(1, 30, 60));
  const GenerationRequest does_not = Named("not", Greedy(2, 70, 50));
  RecordingSink a, b;
  ASSERT_TRUE(Submit(fits, a).ok());
  ASSERT_TRUE(Submit(does_not, b).ok());
  world_.RunUntil([&] { return a.ids.size() == 25; });
  world_.options.context_tokens = 60;
  world_.Restart();
  world_.Run();
  RecordingSink again;
  ASSERT_TRUE(Submit(fits, again).ok());
  world_.Run();
  EXPECT_EQ(again.ids.size(), 30U);
  EXPECT_EQ(again.done->reason, FinishReason::kContext);
  EXPECT_TRUE(world_.journal->Unfinished()->empty());
  const auto number = world_.journal->FindByName("not");
  ASSERT_TRUE(number.ok() && number->has_value());
  const auto outcome = DecodeOutcome(*world_.journal->Load(**number)->outcome);
  EXPECT_EQ(outcome->error.code(), StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace thimble
