#include "daemon/rpc/watch_status_call.h"

#include <string>

#include "daemon/rpc/answers.h"
#include "daemon/rpc/message.h"

namespace thimble {
namespace {

constexpr double kShortest = 0.1;
constexpr double kLongest = 60;

}  // namespace

WatchStatusCall::WatchStatusCall(Call& call) : CallHandler(call) {
  ++call_.context().status_watchers;
}

WatchStatusCall::~WatchStatusCall() {
  --call_.context().status_watchers;
  std::erase(call_.context().tickers, this);
}

Status WatchStatusCall::OnMessage(const grpc::ByteBuffer& message) {
  RpcContext& context = call_.context();
  THIMBLE_RETURN_IF_ERROR(call_.Hold());
  v1::WatchStatusRequest request;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(message, {}, &request));
  const double seconds = request.has_interval_seconds() ? request.interval_seconds() : 1;
  if (!(seconds >= kShortest && seconds <= kLongest)) {
    return InvalidArgumentError("interval_seconds " + std::to_string(seconds) + ": from 0.1 to 60");
  }
  if (context.status_watchers > kMaxWatchers) {
    return ResourceExhaustedError(std::to_string(kMaxWatchers) +
                                  " clients watch the status already; no more may");
  }
  interval_ = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  context.tickers.push_back(this);
  next_ = Clock::now() + interval_;
  call_.Send(ToBytes(StatusMessage(context)));
  return {};
}

void WatchStatusCall::OnTick(Clock::time_point now) {
  if (now < next_ || !call_.idle()) return;
  next_ = std::max(next_ + interval_, now);
  call_.Send(ToBytes(StatusMessage(call_.context())));
}

void WatchStatusCall::OnStop() {
  constexpr int kLast = 1;
  call_.Send(ToBytes(StatusMessage(call_.context())), kLast);
  call_.End(UnavailableError(call_.context().stopping));
}

}  // namespace thimble
