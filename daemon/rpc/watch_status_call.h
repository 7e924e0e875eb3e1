// WatchStatus: GetStatus's response at once, then once every interval. One is under way at a time,
// so a slow reader misses some and nothing piles up.
// Called by: its Call, RpcServer (ticks). Memory: 32 bytes, and one response being sent; at most
// kMaxWatchers of them.
#pragma once

#include "daemon/rpc/call.h"

namespace thimble {

class WatchStatusCall final : public CallHandler {
 public:
  static constexpr uint32_t kMaxWatchers = 16;

  explicit WatchStatusCall(Call& call);
  ~WatchStatusCall() override;

  Status OnMessage(const grpc::ByteBuffer& message) override;
  void OnTick(Clock::time_point now) override;
  void OnStop() override;

 private:
  Clock::duration interval_{};
  Clock::time_point next_{};
};

}  // namespace thimble
