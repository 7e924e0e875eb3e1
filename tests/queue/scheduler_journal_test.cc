// What the journal is given of the requests' tokens, and when.
#include "daemon/queue/request_record.h"
#include "tests/queue/scheduler_fixture.h"

namespace thimble {
namespace {

class SchedulerJournalTest : public SchedulerTest {
 protected:
  // Opened with a clock that stands still but where a test moves it.
  void Start() {
    world_.options.clock = [this] { return world_.now; };
    world_.Restart();
  }
  static GenerationRequest Named(GenerationRequest request) {
    request.name = "story";
    request.detach = true;
    return request;
  }
  uint32_t Journaled(uint64_t number) {
    const Result<Journal::Entry> entry = world_.journal->Load(number);
    EXPECT_TRUE(entry.ok()) << entry.status().ToString();
    return static_cast<uint32_t>(entry->tokens.size()) / kJournalIntsPerToken;
  }
};

TEST_F(SchedulerJournalTest, TokensAreJournaledTogetherOnceASecond) {
  Start();
  RecordingSink sink;
  const uint64_t number = Submit(Named(Drawing(3, 5, 20, 7)), sink);
  world_.RunUntil([&] { return sink.ids.size() == 6; });
  EXPECT_EQ(Journaled(number), 1U) << "the first one at once";
  world_.now += 0.999;
  world_.RunUntil([&] { return sink.ids.size() == 7; });
  EXPECT_EQ(Journaled(number), 1U);
  world_.now += 0.002;
  world_.RunUntil([&] { return sink.ids.size() == 8; });
  EXPECT_EQ(Journaled(number), 8U);
  world_.RunUntil([&] { return sink.ids.size() == 9; });
  EXPECT_EQ(Journaled(number), 8U);
  world_.Run();
  EXPECT_EQ(Journaled(number), 20U) << "its end is kept, with all of it";
}

TEST_F(SchedulerJournalTest, OnASlowMachineEachTokenIsJournaledAtOnce) {
  Start();
  RecordingSink sink;
  const uint64_t number = Submit(Named(Greedy(3, 5, 5)), sink);
  for (uint32_t n = 1; n < 5; ++n) {
    world_.now += 1;
    world_.RunUntil([&] { return sink.ids.size() == n; });
    EXPECT_EQ(Journaled(number), n);
  }
}

TEST_F(SchedulerJournalTest, WhatWasToldAndNotJournaledComesAgainAfterAKill) {
  const GenerationRequest request = Named(Drawing(3, 5, 20, 7));
  const std::vector<TokenId> whole = Alone(request);
  Start();
  RecordingSink before, after;
  const uint64_t number = Submit(request, before);
  world_.RunUntil([&] { return before.ids.size() == 12; });
  ASSERT_LT(Journaled(number), 12U);
  world_.Restart();
  Submit(request, after);
  world_.Run();
  EXPECT_EQ(after.ids, whole);
  EXPECT_TRUE(std::equal(before.ids.begin(), before.ids.end(), whole.begin()));
}

TEST_F(SchedulerJournalTest, AnOrderlyStopJournalsAll) {
  Start();
  RecordingSink sink;
  const uint64_t number = Submit(Named(Greedy(3, 5, 20)), sink);
  world_.RunUntil([&] { return sink.ids.size() == 12; });
  world_.scheduler->Suspend("thimbled is stopping");
  EXPECT_EQ(Journaled(number), 12U);
}

TEST_F(SchedulerJournalTest, OneThatGaveItsSlotUpIsNotForgotten) {
  world_.options.max_active = 1;
  Start();
  RecordingSink slow, other;
  const uint64_t number = Submit(Named(Greedy(3, 5, 20)), slow);
  world_.RunUntil([&] { return slow.ids.size() == 4; });
  slow.accepts = false;
  Submit(Greedy(4, 3, 3), other);
  EXPECT_EQ(Journaled(number), 1U);
  world_.now += 2.5;
  world_.RunUntil([&] { return other.ids.size() == 1; });
  EXPECT_EQ(Journaled(number), 4U);
}

TEST_F(SchedulerJournalTest, AnEndThatNobodyCanAskForIsNotWaitedFor) {
  Start();
  RecordingSink sink;
  const uint64_t number = Submit(Greedy(3, 5, 8), sink);
  world_.RunUntil([&] { return sink.ids.size() == 7; });
  EXPECT_EQ(Journaled(number), 1U);
  world_.Run();
  ASSERT_TRUE(sink.done.has_value());
  EXPECT_EQ(world_.journal->Load(number).status().code(), StatusCode::kNotFound);
}

TEST_F(SchedulerJournalTest, AFullJournalRefusesOrFailsAndKeepsWhatItSays) {
  world_.journal_map_bytes = 96 * 1024;
  world_.options.max_queue = 100;
  world_.options.clock = [this] { return world_.now += 0.2; };  // two passes between commits
  world_.Restart();
  std::vector<std::unique_ptr<RecordingSink>> sinks;
  std::vector<uint64_t> left;  // their clients have gone
  for (int i = 0; i < 100; ++i) {
    sinks.push_back(std::make_unique<RecordingSink>());
    GenerationRequest request = Greedy(i % 40, 40, 80);
    request.name = "r" + std::to_string(i);
    request.detach = i % 2 == 0;
    const Result<uint64_t> number = world_.scheduler->Submit(request, sinks.back().get());
    if (!number.ok()) {
      EXPECT_EQ(number.status().code(), StatusCode::kResourceExhausted);
      sinks.pop_back();
    } else if (request.detach) {
      world_.scheduler->ClientGone(*number);
      sinks.pop_back();
      left.push_back(*number);
    }
  }
  EXPECT_LT(sinks.size() + left.size(), 100U);
  world_.Run();
  size_t failed = 0;
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->done.has_value());
    EXPECT_EQ(sink->ids.size(), sink->done->generated_tokens);
    if (sink->done->error.ok()) continue;
    EXPECT_EQ(sink->done->error.code(), StatusCode::kResourceExhausted);
    ++failed;
  }
  EXPECT_GT(failed, 0U);
  size_t kept = 0;
  for (const uint64_t number : left) {
    const Result<Journal::Entry> entry = world_.journal->Load(number);
    if (!entry.ok() || !entry->outcome) continue;  // made room for others, or is to go on
    const Result<RequestResult> result = DecodeOutcome(*entry->outcome);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(Journaled(number), result->generated_tokens);
    ++kept;
  }
  EXPECT_GT(kept, 0U);
}

}  // namespace
}  // namespace thimble
