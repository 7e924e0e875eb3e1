#include "daemon/rpc/health_call.h"

#include <array>

#include "daemon/rpc/message.h"

namespace thimble {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr std::string_view kReadiness = "thimble.v1.Thimble";
constexpr std::array kStrings = {StringField{.number = 1, .name = "service"}};

HealthCheckResponse::ServingStatus StateOf(const RpcContext& context, std::string_view service) {
  if (!service.empty() && service != kReadiness) return HealthCheckResponse::SERVICE_UNKNOWN;
  const bool frozen = !service.empty() && !context.not_ready.empty();
  return context.stopping.empty() && !frozen ? HealthCheckResponse::SERVING
                                             : HealthCheckResponse::NOT_SERVING;
}

grpc::ByteBuffer Response(HealthCheckResponse::ServingStatus status) {
  HealthCheckResponse response;
  response.set_status(status);
  return ToBytes(response);
}

}  // namespace

Status AnswerHealthCheck(RpcContext& context, const grpc::ByteBuffer& request,
                         grpc::ByteBuffer* response) {
  HealthCheckRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(request, kStrings, &message));
  const HealthCheckResponse::ServingStatus status = StateOf(context, message.service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    return NotFoundError(R"(there is no such service; there are "" and "thimble.v1.Thimble")");
  }
  *response = Response(status);
  return {};
}

HealthWatchCall::HealthWatchCall(Call& call) : CallHandler(call) {
  ++call_.context().health_watchers;
}

HealthWatchCall::~HealthWatchCall() {
  --call_.context().health_watchers;
  std::erase(call_.context().tickers, this);
}

Status HealthWatchCall::OnMessage(const grpc::ByteBuffer& message) {
  RpcContext& context = call_.context();
  THIMBLE_RETURN_IF_ERROR(call_.Hold());
  HealthCheckRequest request;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(message, kStrings, &request));
  if (context.health_watchers > kMaxWatchers) {
    return ResourceExhaustedError(std::to_string(kMaxWatchers) + " watchers are there already");
  }
  // A name that is not known is told so for ever: no more than a known one's length is kept.
  service_ = request.service().substr(0, kReadiness.size() + 1);
  context.tickers.push_back(this);
  OnTick({});
  return {};
}

void HealthWatchCall::OnTick(Clock::time_point /*now*/) {
  const ServingStatus status = StateOf(call_.context(), service_);
  if (told_ == status) return;
  told_ = status;
  constexpr int kNewest = 1;
  call_.Send(Response(status), kNewest);
}

void HealthWatchCall::OnStop() {
  OnTick({});
  call_.End(UnavailableError(call_.context().stopping));
}

}  // namespace thimble
