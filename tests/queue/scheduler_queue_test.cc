// Those that wait: whose turn it is, what they are told, and who finds a place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/queue/scheduler_fixture.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

GenerationRequest Of(uint64_t client, int32_t first, uint32_t length, uint32_t max_tokens) {
  GenerationRequest request = Greedy(first, length, max_tokens);
  request.client = client;
  return request;
}

TEST_F(SchedulerTest, OneWhoQueuesSixtyDoesNotHoldUpOneWhoQueuesOne) {
  world_.options.max_active = 1;
  world_.Restart();
  std::vector<RecordingSink> many(56);
  RecordingSink one;
  for (size_t i = 0; i < many.size(); ++i) {
    Submit(Of(1, static_cast<int32_t>(i % 40), 3, 4), many[i]);
  }
  world_.RunUntil([&] { return many[0].ids.size() == 1; });
  Submit(Of(2, 5, 3, 4), one);
  EXPECT_THAT(one.positions, ElementsAre(1));
  EXPECT_EQ(many[1].positions.back(), 2U);
  world_.RunUntil([&] { return one.done.has_value(); });
  EXPECT_TRUE(many[0].done.has_value());
  EXPECT_EQ(many[1].started, 0U);
  world_.Run();
  for (const RecordingSink& sink : many) EXPECT_TRUE(sink.done.has_value());
}

TEST_F(SchedulerTest, ClientsShareTheSlots) {
  world_.options.max_active = 4;
  world_.Restart();
  std::vector<RecordingSink> greedy(8);
  std::vector<RecordingSink> modest(2);
  for (RecordingSink& sink : greedy) Submit(Of(1, 1, 3, 20), sink);
  for (RecordingSink& sink : modest) Submit(Of(2, 2, 3, 20), sink);
  world_.RunUntil([&] { return world_.scheduler->status().active == 4; });
  EXPECT_EQ(greedy[0].started + greedy[1].started, 6U);
  EXPECT_EQ(greedy[2].started, 0U);
  EXPECT_EQ(modest[0].started + modest[1].started, 6U);
}

TEST_F(SchedulerTest, AnEighthOfTheQueueIsKeptForThoseWhoHaveNoneWaiting) {
  world_.options.max_active = 1;
  world_.options.max_queue = 16;
  world_.Restart();
  std::vector<std::unique_ptr<RecordingSink>> sinks;
  Status refused;
  while (refused.ok()) {
    sinks.push_back(std::make_unique<RecordingSink>());
    refused = world_.scheduler->Submit(Of(1, 1, 3, 2), sinks.back().get()).status();
  }
  sinks.pop_back();
  EXPECT_EQ(sinks.size(), 15U);  // the free slot counts as a place
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(),
            "queue: 15 requests wait, for 16 places and 1 free slots; 2 of the places are kept for "
            "clients "
            "that have none waiting");
  std::vector<RecordingSink> others(2);
  Submit(Of(2, 1, 3, 2), others[0]);
  EXPECT_EQ(Refused(Of(2, 1, 3, 2)).code(), StatusCode::kResourceExhausted);
  Submit(Of(3, 1, 3, 2), others[1]);
  EXPECT_THAT(Refused(Of(4, 1, 3, 2)).message(),
              HasSubstr("17 requests wait, for 16 places and 1 free slots"));
  world_.Run();
  EXPECT_TRUE(others[1].done.has_value());
}

TEST_F(SchedulerTest, TheWaitIsEstimatedFromWhatPassesHaveTaken) {
  world_.options.max_active = 1;
  world_.options.clock = [this] { return world_.now; };
  world_.Restart();
  EXPECT_EQ(world_.scheduler->EstimatedWaitSeconds(), 0);
  EXPECT_EQ(world_.scheduler->RetryAfterSeconds(), 1);
  RecordingSink first, second, third;
  Submit(Greedy(1, 1, 50), first);
  EXPECT_THAT(first.waits, ElementsAre(0));
  // Every pass takes two seconds, a second a step.
  const auto step = [&] {
    if (world_.runner->running()) world_.now += 1;
    ASSERT_TRUE(world_.scheduler->Step().ok());
  };
  while (first.ids.size() < 10) step();
  Submit(Greedy(2, 1, 20), second);
  Submit(Greedy(3, 1, 20), third);
  // 40 tokens of the first one are left, of which one may be under way; then 20 of the second.
  ASSERT_EQ(second.waits.size(), 1U);
  ASSERT_EQ(third.waits.size(), 1U);
  EXPECT_NEAR(second.waits[0], 82, 5);
  EXPECT_NEAR(third.waits[0] - second.waits[0], 42, 3);
  EXPECT_NEAR(world_.scheduler->EstimatedWaitSeconds() - third.waits[0], 42, 3);
  EXPECT_NEAR(world_.scheduler->RetryAfterSeconds(), second.waits[0], 1e-9);
  const double promised = world_.now + third.waits[0];
  while (third.started == 0) step();
  EXPECT_NEAR(world_.now, promised, 15) << "the estimate of a load that does not change is met";
}

TEST_F(SchedulerTest, ClientsThatDoNotReadDoNotKeepTheSlotsFromOthers) {
  world_.options.max_active = 2;
  world_.Restart();
  std::vector<RecordingSink> deaf(2);
  std::vector<RecordingSink> others(3);
  for (RecordingSink& sink : deaf) Submit(Drawing(1, 40, 30, 7), sink);
  world_.RunUntil([&] { return deaf[0].ids.size() >= 3 && deaf[1].ids.size() >= 3; });
  for (RecordingSink& sink : deaf) sink.accepts = false;
  for (RecordingSink& sink : others) Submit(Greedy(2, 3, 5), sink);
  world_.Run();
  EXPECT_EQ(others[0].started, 0U) << "not before they have had their time";
  world_.now += 2;
  world_.Run();
  for (const RecordingSink& sink : others) EXPECT_TRUE(sink.done.has_value());
  EXPECT_FALSE(deaf[0].done.has_value());
  EXPECT_FALSE(world_.scheduler->HasWork());
  EXPECT_EQ(others[0].ids, Alone(Greedy(2, 3, 5)));
  // They read on, and the text is what it would have been.
  for (RecordingSink& sink : deaf) sink.accepts = true;
  EXPECT_TRUE(world_.scheduler->HasWork());
  world_.Run();
  for (const RecordingSink& sink : deaf) EXPECT_EQ(sink.ids, Alone(Drawing(1, 40, 30, 7)));
}

TEST_F(SchedulerTest, OneThatGaveItsSlotUpCanBeCancelledAndTakenUpByAnother) {
  world_.options.max_active = 1;
  world_.Restart();
  RecordingSink deaf;
  RecordingSink other;
  RecordingSink back;
  GenerationRequest request = Greedy(1, 40, 30);
  request.name = "kept";
  request.detach = true;
  const uint64_t number = Submit(request, deaf);
  world_.RunUntil([&] { return deaf.ids.size() == 3; });
  deaf.accepts = false;
  Submit(Greedy(2, 3, 5), other);
  world_.Run();
  world_.now += 2;
  world_.Run();
  EXPECT_TRUE(other.done.has_value());
  world_.scheduler->ClientGone(number);
  EXPECT_EQ(Submit(request, back), number);
  world_.Run();
  EXPECT_EQ(back.ids, Alone(Greedy(1, 40, 30)));
}

TEST_F(SchedulerTest, PositionsAreToldAgainOnlyWhereTheyHaveChanged) {
  world_.options.max_active = 1;
  world_.Restart();
  std::vector<RecordingSink> sinks(4);
  for (size_t i = 0; i < 3; ++i) Submit(Of(1, 1, 3, 2), sinks[i]);
  Submit(Of(2, 1, 3, 2), sinks[3]);
  EXPECT_THAT(sinks[0].positions, ElementsAre(1));
  EXPECT_THAT(sinks[1].positions, ElementsAre(2, 3));
  EXPECT_THAT(sinks[2].positions, ElementsAre(3, 4));
  EXPECT_THAT(sinks[3].positions, ElementsAre(2));
}

}  // namespace
}  // namespace thimble
