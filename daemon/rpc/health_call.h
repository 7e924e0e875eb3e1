// grpc.health.v1.Health: Check answers at once, Watch tells changes. The services are "" (the
// process: it answers, so it lives) and "thimble.v1.Thimble" (requests are taken). Both serve from
// the first moment the server listens until it stops.
//
// gRPC's own implementation would start threads; this one lives on our queue as the other calls do.
// Called by: the completion queue, RpcServer (Await, Stop). Memory: about 2 KiB a call, at most
// kMaxWatchers of Watch.
#pragma once

#include "daemon/rpc/context.h"
#include "daemon/rpc/tag.h"

namespace thimble {

class HealthCheckCall {
 public:
  // Waits for the next client.
  static void Await(RpcContext& context);

 private:
  explicit HealthCheckCall(RpcContext& context) : context_(context) { ++context_.calls; }
  ~HealthCheckCall() { --context_.calls; }

  void Accepted(bool ok);
  void Finished(bool ok);

  RpcContext& context_;
  grpc::ServerContext call_;
  grpc::health::v1::HealthCheckRequest request_;
  grpc::ServerAsyncResponseWriter<grpc::health::v1::HealthCheckResponse> writer_{&call_};
  MemberTag<HealthCheckCall> accepted_{this, &HealthCheckCall::Accepted};
  MemberTag<HealthCheckCall> finished_{this, &HealthCheckCall::Finished};
};

//   kAwaiting --accepted--> kWatching --Stop, refused--> kFinishing
//
// Deletes itself as GenerateCall does.
class HealthWatchCall {
 public:
  static constexpr size_t kMaxWatchers = 32;

  // Waits for the next client.
  static void Await(RpcContext& context);

  // The daemon stops: tells NOT_SERVING and ends the call. Does not delete it.
  void Stop();

 private:
  enum class State { kAwaiting, kWatching, kFinishing };

  explicit HealthWatchCall(RpcContext& context) : context_(context) { ++context_.calls; }
  ~HealthWatchCall();

  void Accepted(bool ok);
  void Written(bool ok);
  void Finished(bool ok);
  void Over(bool ok);  // AsyncNotifyWhenDone
  void Finish(const grpc::Status& status);
  void DeleteIfOver();

  RpcContext& context_;
  grpc::ServerContext call_;
  grpc::health::v1::HealthCheckRequest request_;
  grpc::ServerAsyncWriter<grpc::health::v1::HealthCheckResponse> writer_{&call_};
  MemberTag<HealthWatchCall> accepted_{this, &HealthWatchCall::Accepted};
  MemberTag<HealthWatchCall> written_{this, &HealthWatchCall::Written};
  MemberTag<HealthWatchCall> finished_{this, &HealthWatchCall::Finished};
  MemberTag<HealthWatchCall> over_tag_{this, &HealthWatchCall::Over};

  State state_ = State::kAwaiting;
  bool op_outstanding_ = false;  // a write or the finish
  bool over_ = false;
};

}  // namespace thimble
