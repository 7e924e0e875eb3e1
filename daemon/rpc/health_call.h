// grpc.health.v1.Health: Check answers at once, Watch tells changes. The services are "" (the
// process: it answers, so it lives) and "thimble.v1.Thimble" (requests are served): NOT_SERVING
// when the daemon stops, or when requests wait and none gets on (RpcContext::not_ready).
//
// gRPC's own implementation would start threads; this one lives on our queue as the other calls do.
// Called by: methods.cc, its Call, RpcServer (ticks). Memory: under 100 bytes a Watch, at most
// kMaxWatchers of them.
#pragma once

#include <optional>
#include <string>

#include "daemon/rpc/call.h"
#include "grpc/health/v1/health.pb.h"

namespace thimble {

Status AnswerHealthCheck(RpcContext& context, const grpc::ByteBuffer& request,
                         grpc::ByteBuffer* response);

class HealthWatchCall final : public CallHandler {
 public:
  static constexpr uint32_t kMaxWatchers = 32;

  explicit HealthWatchCall(Call& call);
  ~HealthWatchCall() override;

  Status OnMessage(const grpc::ByteBuffer& message) override;
  void OnTick(Clock::time_point now) override;
  void OnStop() override;

 private:
  using ServingStatus = grpc::health::v1::HealthCheckResponse::ServingStatus;

  std::string service_;
  std::optional<ServingStatus> told_;
};

}  // namespace thimble
