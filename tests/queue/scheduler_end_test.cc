// How requests end: the model's end, stop strings, a full context, a daemon that stops.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "daemon/queue/scheduler.h"
#include "tests/queue/scheduler_fixture.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(SchedulerTest, TheModelsEndEndsTheTextAndIsNoToken) {
  Chain({1, 2, 3, 49});
  world_.Restart();
  RecordingSink sink;
  Submit(Greedy(1, 1, 20), sink);
  world_.Run();
  EXPECT_THAT(sink.ids, ElementsAre(2, 3));
  EXPECT_EQ(sink.done->reason, FinishReason::kEndOfText);
  EXPECT_EQ(sink.done->generated_tokens, 2U);
}

TEST_F(SchedulerTest, IgnoreEosNeverDrawsTheEnd) {
  Chain({1, 2, 3, 49});
  world_.Restart();
  RecordingSink sink;
  GenerationRequest request = Greedy(1, 1, 20);
  request.ignore_eos = true;
  Submit(request, sink);
  world_.Run();
  EXPECT_EQ(sink.ids.size(), 20U);
  EXPECT_EQ(std::count(sink.ids.begin(), sink.ids.end(), 49), 0);
  EXPECT_EQ(sink.done->reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, AStopStringAcrossTokensEndsTheTextBeforeIt) {
  world_.tokenizer.pieces = {{2, "Once EN"}, {3, "D"}, {4, "x END"}};
  Chain({1, 2, 4, 3, 5});
  world_.Restart();
  RecordingSink sink;
  GenerationRequest request = Greedy(1, 1, 20);
  request.stop = {"ENDD", "never"};
  Submit(request, sink);
  world_.Run();
  EXPECT_THAT(sink.ids, ElementsAre(2, 4, 3));
  EXPECT_THAT(sink.texts, ElementsAre("Once ", "ENx ", ""));
  EXPECT_EQ(sink.text, "Once ENx ");
  EXPECT_EQ(sink.tail, "");
  EXPECT_EQ(sink.done->reason, FinishReason::kStop);
  EXPECT_EQ(sink.done->generated_tokens, 3U);
}

TEST_F(SchedulerTest, HeldBackTextIsTheTail) {
  world_.tokenizer.pieces = {{2, "gr\xC3"}, {3, "\xBC\xC3\x9F"}, {4, "e EN\xE2\x82"}};
  Chain({1, 2, 3, 4, 5});
  world_.Restart();
  RecordingSink sink;
  GenerationRequest request = Greedy(1, 1, 3);
  request.stop = {"EN\xE2\x82\xAC"};
  Submit(request, sink);
  world_.Run();
  EXPECT_THAT(sink.texts, ElementsAre("gr", "\xC3\xBC\xC3\x9F", "e "));
  EXPECT_EQ(sink.tail, "EN\xE2\x82");
  EXPECT_EQ(sink.done->reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, TheTextEndsWhereTheContextIsFull) {
  world_.options.context_tokens = 40;
  world_.Restart();
  RecordingSink sink, last;
  Submit(Greedy(1, 30, 40), sink);
  Submit(Greedy(2, 39, 1), last);
  world_.Run();
  EXPECT_EQ(sink.ids.size(), 10U);
  EXPECT_EQ(sink.done->reason, FinishReason::kContext);
  EXPECT_EQ(last.ids.size(), 1U);
  EXPECT_EQ(last.done->reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, SuspendTellsAllAndLeavesThemInTheJournal) {
  world_.options.max_active = 1;
  world_.Restart();
  RecordingSink active, queued;
  Submit(Greedy(1, 3, 20), active);
  Submit(Greedy(2, 3, 20), queued);
  world_.RunUntil([&] { return active.ids.size() == 5 && world_.runner->running(); });
  world_.scheduler->Suspend("thimbled is stopping");
  ASSERT_TRUE(active.done && queued.done);
  EXPECT_EQ(active.done->error.code(), StatusCode::kUnavailable);
  EXPECT_EQ(active.done->error.message(), "thimbled is stopping");
  EXPECT_EQ(queued.done->error.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(world_.runner->running());
  EXPECT_FALSE(world_.scheduler->HasWork());
  EXPECT_TRUE(world_.scheduler->Step().ok());
  EXPECT_EQ(Refused(Greedy(3, 3, 3)).code(), StatusCode::kUnavailable);
  EXPECT_EQ(world_.journal->Unfinished()->size(), 2U);
  EXPECT_EQ(world_.scheduler->status().active, 0U);
}

}  // namespace
}  // namespace thimble
