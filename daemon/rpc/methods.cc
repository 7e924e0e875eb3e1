#include "daemon/rpc/methods.h"

#include <array>
#include <string_view>

#include "daemon/rpc/answers.h"
#include "daemon/rpc/generate_call.h"
#include "daemon/rpc/health_call.h"
#include "daemon/rpc/reflection_call.h"
#include "daemon/rpc/watch_status_call.h"

namespace thimble {
namespace {

// Answers are as large as 512 KiB; clients that do not read theirs hold this much of them at most.
constexpr size_t kMaxBytesOutstanding = 1 << 20;

using Answer = Status (*)(RpcContext& context, const grpc::ByteBuffer& request,
                          grpc::ByteBuffer* response);

// One message in, one out, at once.
class UnaryHandler final : public CallHandler {
 public:
  UnaryHandler(Call& call, Answer answer) : CallHandler(call), answer_(answer) {}
  Status OnMessage(const grpc::ByteBuffer& message) override {
    if (call_.context().bytes_outstanding > kMaxBytesOutstanding) {
      return ResourceExhaustedError(std::to_string(call_.context().bytes_outstanding) +
                                    " bytes wait to be read by clients: at most " +
                                    std::to_string(kMaxBytesOutstanding));
    }
    grpc::ByteBuffer response;
    THIMBLE_RETURN_IF_ERROR(answer_(call_.context(), message, &response));
    call_.Send(std::move(response));
    call_.End({});
    return {};
  }

 private:
  const Answer answer_;
};

template <typename Handler>
std::unique_ptr<CallHandler> Make(Call& call) {
  return std::make_unique<Handler>(call);
}
template <Answer kAnswer>
std::unique_ptr<CallHandler> Unary(Call& call) {
  return std::make_unique<UnaryHandler>(call, kAnswer);
}

struct Method {
  std::string_view name;
  std::unique_ptr<CallHandler> (*make)(Call& call);
};
constexpr std::array kMethods = {
    Method{"/thimble.v1.Thimble/Generate", Make<GenerateCall>},
    Method{"/thimble.v1.Thimble/Chat", Make<ChatCall>},
    Method{"/thimble.v1.Thimble/Tokenize", Unary<AnswerTokenize>},
    Method{"/thimble.v1.Thimble/Detokenize", Unary<AnswerDetokenize>},
    Method{"/thimble.v1.Thimble/GetModel", Unary<AnswerGetModel>},
    Method{"/thimble.v1.Thimble/GetPlan", Unary<AnswerGetPlan>},
    Method{"/thimble.v1.Thimble/GetStatus", Unary<AnswerGetStatus>},
    Method{"/thimble.v1.Thimble/WatchStatus", Make<WatchStatusCall>},
    Method{"/grpc.health.v1.Health/Check", Unary<AnswerHealthCheck>},
    Method{"/grpc.health.v1.Health/Watch", Make<HealthWatchCall>},
};
constexpr std::array kReflection = {
    Method{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Make<ReflectionCall>},
    Method{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Make<ReflectionCall>},
};

}  // namespace

Result<std::unique_ptr<CallHandler>> MakeHandler(const std::string& method, Call& call) {
  for (const Method& known : kMethods) {
    if (known.name == method) return known.make(call);
  }
  for (const Method& known : kReflection) {
    if (known.name != method) continue;
    if (call.context().reflection) return known.make(call);
    return UnimplementedError("reflection is off; thimbled --reflection serves it");
  }
  return UnimplementedError("there is no method " + method.substr(0, 256));
}

}  // namespace thimble
