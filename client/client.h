// A small C++ client of thimbled: one connection, blocking calls. Every method may be called from
// one thread at a time; a ClientContext may be cancelled from any.
// Called by: the `thimble` command, tests, other programs. Memory: gRPC's own, some MiB.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "storage/base/status.h"
#include "thimble/v1/thimble.grpc.pb.h"

namespace thimble {

class Client {
 public:
  // `address` as thimbled's --listen. The error is that of connecting: NOT_FOUND where there is no
  // such socket, UNAVAILABLE where nothing answers, INVALID_ARGUMENT for the address.
  static Result<Client> Connect(const std::string& address);

  // Calls `on_event` for every event in order, until the call ends or it returns false (which
  // cancels the call). The Status is the daemon's.
  using OnEvent = std::function<bool(const v1::GenerateEvent& event)>;
  Status Generate(const v1::GenerateRequest& request, grpc::ClientContext& context,
                  const OnEvent& on_event);

  Result<v1::GetStatusResponse> GetStatus();

 private:
  explicit Client(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::Thimble::NewStub(channel)) {}
  std::unique_ptr<v1::Thimble::Stub> stub_;
};

}  // namespace thimble
