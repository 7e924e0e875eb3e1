// A connection to thimbled, in the API's own messages: blocking calls, each with the daemon's
// Status. A method may be called from one thread at a time; a ClientContext may be cancelled from
// any. Other programs have client/include/thimble/client.h, which shows no gRPC.
// Called by: the `thimble` command, the client library, tests. Memory: gRPC's own, some MiB.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "storage/base/status.h"
#include "thimble/v1/thimble.grpc.pb.h"

namespace thimble {

inline constexpr const char* kDefaultAddress = "unix:/run/thimble/thimble.sock";

class Client {
 public:
  // `address` as thimbled's --listen. The error is that of connecting: NOT_FOUND where there is no
  // such socket, UNAVAILABLE where nothing answers, INVALID_ARGUMENT for the address.
  static Result<Client> Connect(const std::string& address);

  // A new connection to the same address, after one was lost; errors as Connect's.
  Status Reconnect();

  // Calls `on_event` for every event in order, until the call ends or it returns false (which
  // cancels the call). The Status is the daemon's; UNAVAILABLE where the connection is lost.
  using OnEvent = std::function<bool(const v1::GenerateEvent& event)>;
  Status Generate(const v1::GenerateRequest& request, grpc::ClientContext& context,
                  const OnEvent& on_event);
  Status Chat(const v1::ChatRequest& request, grpc::ClientContext& context,
              const OnEvent& on_event);

  Result<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request);
  Result<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request);
  Result<v1::GetModelResponse> GetModel();
  Result<v1::GetPlanResponse> GetPlan(const v1::GetPlanRequest& request);
  Result<v1::GetStatusResponse> GetStatus();

  // A status at once and then every interval, until `on_status` returns false or the call ends.
  using OnStatus = std::function<bool(const v1::GetStatusResponse& status)>;
  Status WatchStatus(double interval_seconds, grpc::ClientContext& context,
                     const OnStatus& on_status);

  // Whether grpc.health.v1 says SERVING of a service: "" that the daemon lives,
  // "thimble.v1.Thimble" that it is ready.
  Result<bool> IsServing(const std::string& service);

 private:
  explicit Client(std::string address) : address_(std::move(address)) {}

  std::string address_;
  std::unique_ptr<v1::Thimble::Stub> stub_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace thimble
