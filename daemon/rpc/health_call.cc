#include "daemon/rpc/health_call.h"

#include <algorithm>
#include <string>

namespace thimble {
namespace {

using grpc::health::v1::HealthCheckResponse;

HealthCheckResponse StateOf(const RpcContext& context, const std::string& service) {
  HealthCheckResponse response;
  if (!service.empty() && service != v1::Thimble::service_full_name()) {
    response.set_status(HealthCheckResponse::SERVICE_UNKNOWN);
  } else {
    response.set_status(context.stopping.empty() ? HealthCheckResponse::SERVING
                                                 : HealthCheckResponse::NOT_SERVING);
  }
  return response;
}

}  // namespace

void HealthCheckCall::Await(RpcContext& context) {
  auto* call = new HealthCheckCall(context);
  context.health.RequestCheck(&call->call_, &call->request_, &call->writer_, context.queue,
                              context.queue, &call->accepted_);
}

void HealthCheckCall::Accepted(bool ok) {
  if (!ok) {  // the server stops
    delete this;
    return;
  }
  if (context_.stopping.empty()) Await(context_);
  const HealthCheckResponse response = StateOf(context_, request_.service());
  if (response.status() == HealthCheckResponse::SERVICE_UNKNOWN) {
    writer_.FinishWithError({grpc::StatusCode::NOT_FOUND,
                             R"(there is no such service; there are "" and "thimble.v1.Thimble")"},
                            &finished_);
  } else {
    writer_.Finish(response, grpc::Status::OK, &finished_);
  }
}

void HealthCheckCall::Finished(bool /*ok*/) { delete this; }

void HealthWatchCall::Await(RpcContext& context) {
  auto* call = new HealthWatchCall(context);
  call->call_.AsyncNotifyWhenDone(&call->over_tag_);
  context.health.RequestWatch(&call->call_, &call->request_, &call->writer_, context.queue,
                              context.queue, &call->accepted_);
}

HealthWatchCall::~HealthWatchCall() {
  --context_.calls;
  std::erase(context_.watchers, this);
}

void HealthWatchCall::Accepted(bool ok) {
  if (!ok) {  // the server stops; a call that never started is never told that it is over
    delete this;
    return;
  }
  state_ = State::kWatching;
  if (!context_.stopping.empty()) {
    Stop();
    return;
  }
  Await(context_);
  if (context_.watchers.size() >= kMaxWatchers) {
    Finish({grpc::StatusCode::RESOURCE_EXHAUSTED,
            std::to_string(kMaxWatchers) + " watchers are there already"});
    return;
  }
  context_.watchers.push_back(this);
  op_outstanding_ = true;
  writer_.Write(StateOf(context_, request_.service()), &written_);
}

void HealthWatchCall::Stop() {
  if (op_outstanding_ || over_ || state_ != State::kWatching) return;
  const HealthCheckResponse last = StateOf(context_, request_.service());
  const grpc::Status status(grpc::StatusCode::UNAVAILABLE, context_.stopping);
  if (last.status() == HealthCheckResponse::SERVICE_UNKNOWN) {
    Finish(status);
    return;
  }
  state_ = State::kFinishing;
  op_outstanding_ = true;
  writer_.WriteAndFinish(last, grpc::WriteOptions(), status, &finished_);
}

void HealthWatchCall::Finish(const grpc::Status& status) {
  state_ = State::kFinishing;
  op_outstanding_ = true;
  writer_.Finish(status, &finished_);
}

void HealthWatchCall::Written(bool ok) {
  op_outstanding_ = false;
  if (!ok) {  // the client is gone: Over comes, or has come
    call_.TryCancel();
    state_ = State::kFinishing;
  } else if (!context_.stopping.empty()) {
    Stop();
  }
  DeleteIfOver();
}

void HealthWatchCall::Finished(bool /*ok*/) {
  op_outstanding_ = false;
  DeleteIfOver();
}

void HealthWatchCall::Over(bool /*ok*/) {
  over_ = true;
  DeleteIfOver();
}

void HealthWatchCall::DeleteIfOver() {
  if (over_ && !op_outstanding_) delete this;
}

}  // namespace thimble
