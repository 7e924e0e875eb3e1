// Whose turn it is among the requests that wait. Requests of one client take turns with those of
// others: first comes the client with the fewest active requests, among equals the one that has
// waited longest since its last start. So one that queues 60 requests delays one that queues a
// single request by no more than the next free slot.
//
// Called by: the scheduler, when a slot is free and when positions change. Memory: 16 bytes for
// each client with a request, 24 for each request that waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thimble {

class FairOrder {
 public:
  struct Entry {
    uint64_t number = 0;  // of the request
    uint64_t client = 0;
    bool active = false;  // else it waits
  };

  // Indices into `requests` (by rising number) of those that wait, in the order in which they will
  // start if no other comes and none ends. Valid until the next call. Forgets the turns of clients
  // that have no request any more.
  const std::vector<size_t>& Order(std::span<const Entry> requests);

  // A request of `client` becomes active.
  void Started(uint64_t client);

 private:
  struct Client {
    uint64_t client = 0;
    uint64_t turn = 0;  // when it last started one; 0: never
    uint32_t active = 0;
    uint32_t waiting = 0;
  };
  struct Place {
    uint32_t level = 0;  // requests of its client that are active or start before it
    uint32_t ahead = 0;  // of these, those that wait
    uint64_t turn = 0;
    size_t index = 0;
  };
  Client& Of(uint64_t client);

  uint64_t last_turn_ = 0;
  std::vector<Client> clients_;
  std::vector<Place> places_;
  std::vector<size_t> order_;
};

}  // namespace thimble
