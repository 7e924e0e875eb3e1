#include "daemon/queue/fair_order.h"

#include <algorithm>
#include <tuple>

namespace thimble {

FairOrder::Client& FairOrder::Of(uint64_t client) {
  const auto known = std::find_if(clients_.begin(), clients_.end(),
                                  [=](const Client& c) { return c.client == client; });
  if (known != clients_.end()) return *known;
  clients_.push_back({.client = client});
  return clients_.back();
}

const std::vector<size_t>& FairOrder::Order(std::span<const Entry> requests) {
  for (Client& client : clients_) client.active = client.waiting = 0;
  for (const Entry& entry : requests) {
    if (entry.active) ++Of(entry.client).active;
  }
  places_.clear();
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].active) continue;
    Client& client = Of(requests[i].client);
    places_.push_back({client.active + client.waiting, client.waiting, client.turn, i});
    ++client.waiting;
  }
  std::erase_if(clients_, [](const Client& c) { return c.active + c.waiting == 0; });
  // Of two clients at one level the one with fewer ahead of it has started its last one earlier;
  // the index keeps the order of arrival.
  std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
    return std::tie(a.level, a.ahead, a.turn, a.index) <
           std::tie(b.level, b.ahead, b.turn, b.index);
  });
  order_.clear();
  for (const Place& place : places_) order_.push_back(place.index);
  return order_;
}

void FairOrder::Started(uint64_t client) { Of(client).turn = ++last_turn_; }

}  // namespace thimble
