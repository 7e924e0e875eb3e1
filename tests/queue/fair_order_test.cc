#include "daemon/queue/fair_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thimble {
namespace {

using Entries = std::vector<FairOrder::Entry>;
using testing::ElementsAre;
using testing::IsEmpty;

// The clients of those that wait, in the order of their turns.
std::vector<uint64_t> Clients(FairOrder& order, const Entries& entries) {
  std::vector<uint64_t> clients;
  for (const size_t index : order.Order(entries)) clients.push_back(entries[index].client);
  return clients;
}

TEST(FairOrder, OneClientsRequestsStartInTheOrderInWhichTheyCame) {
  FairOrder order;
  const Entries entries = {{1, 7, true}, {2, 7, false}, {3, 7, false}, {5, 7, false}};
  EXPECT_THAT(order.Order(entries), ElementsAre(1, 2, 3));
  EXPECT_THAT(order.Order({}), IsEmpty());
}

TEST(FairOrder, ClientsTakeTurns) {
  FairOrder order;
  EXPECT_THAT(
      Clients(order, {{1, 1, false}, {2, 1, false}, {3, 1, false}, {4, 2, false}, {5, 2, false}}),
      ElementsAre(1, 2, 1, 2, 1));
}

TEST(FairOrder, WhoHasFewerActiveComesFirst) {
  FairOrder order;
  EXPECT_THAT(
      Clients(
          order,
          {{1, 1, true}, {2, 1, true}, {3, 1, false}, {4, 2, true}, {5, 2, false}, {6, 3, false}}),
      ElementsAre(3, 2, 1));
}

TEST(FairOrder, WithOneSlotItGoesRoundHoweverManyOneHasQueued) {
  FairOrder order;
  Entries waiting;
  for (uint64_t i = 1; i <= 60; ++i) waiting.push_back({i, 1, false});
  waiting.push_back({61, 2, false});
  waiting.push_back({62, 3, false});
  waiting.push_back({63, 3, false});
  std::vector<uint64_t> started;
  for (int n = 0; n < 7; ++n) {
    const size_t next = order.Order(waiting).front();
    order.Started(waiting[next].client);
    started.push_back(waiting[next].client);
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(next));
  }
  EXPECT_THAT(started, ElementsAre(1, 2, 3, 1, 3, 1, 1));
}

TEST(FairOrder, OneThatComesAgainAndAgainDoesNotOvertakeOneThatWaits) {
  FairOrder order;
  EXPECT_THAT(Clients(order, {{1, 1, false}, {2, 2, false}}), ElementsAre(1, 2));
  order.Started(1);
  // It ends at once and its client sends the next one: the other has waited longer.
  EXPECT_THAT(Clients(order, {{2, 2, false}, {3, 1, false}}), ElementsAre(2, 1));
}

}  // namespace
}  // namespace thimble
