// Server reflection (grpc.reflection.v1alpha, and v1, which is the same): which services there are,
// and the files that define them. Answers one question at a time, the next when the client has
// taken the answer. Served with --reflection only: whoever debugs with grpcurl needs it, a daemon
// in the field does not.
// Called by: its Call. Memory: under 100 bytes a call, at most kMaxCalls of them; a file of some
// KiB while it is sent.
#pragma once

#include "daemon/rpc/call.h"

namespace thimble {

class ReflectionCall final : public CallHandler {
 public:
  static constexpr uint32_t kMaxCalls = 8;

  explicit ReflectionCall(Call& call);
  ~ReflectionCall() override;

  Status OnMessage(const grpc::ByteBuffer& message) override;
  [[nodiscard]] bool reads_on() const override { return true; }
};

}  // namespace thimble
