#include "daemon/rpc/call.h"

#include <cmath>
#include <utility>

#include "daemon/rpc/connections.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/methods.h"

namespace thimble {
namespace {

// Trailing metadata of gRFC A6, which clients' retry policies heed.
constexpr const char* kRetryPushback = "grpc-retry-pushback-ms";
// Beside max_streams: watches, questions, and calls whose message has not come.
constexpr uint32_t kOtherCalls = 64;

}  // namespace

void Call::Await(RpcContext& context) {
  auto* call = new Call(context);
  call->call_.AsyncNotifyWhenDone(&call->over_tag_);
  context.service.RequestCall(&call->call_, &call->stream_, context.queue, context.queue,
                              &call->accepted_);
}

Call::~Call() {
  --context_.calls;
  if (connection_ != 0) context_.connections->CallEnded(connection_, held_);
  context_.bytes_outstanding -= bytes_outstanding_;
}

void Call::Accepted(bool ok) {
  if (!ok) {  // the server stops; a call that never started is never told that it is over
    delete this;
    return;
  }
  state_ = State::kOpen;
  connection_ = context_.connections->CallBegan(call_.peer());
  if (!context_.stopping.empty()) {
    End(UnavailableError(context_.stopping));
    return;
  }
  Await(context_);
  if (context_.calls > context_.max_streams + kOtherCalls) {
    End(ResourceExhaustedError(std::to_string(context_.calls - 1) +
                               " calls are open already; no more are accepted"));
    return;
  }
  Result<std::unique_ptr<CallHandler>> handler = MakeHandler(call_.method(), *this);
  if (!handler.ok()) {
    End(handler.status());
    return;
  }
  handler_ = std::move(handler).value();
  ReadNext();
}

Status Call::Hold() {
  THIMBLE_RETURN_IF_ERROR(context_.connections->Hold(connection_));
  held_ = true;
  return {};
}

void Call::ReadNext() {
  if (over_ || read_outstanding_ || state_ != State::kOpen) return;
  read_outstanding_ = true;
  stream_.Read(&message_, &read_);
}

void Call::Read(bool ok) {
  read_outstanding_ = false;
  if (over_) {
    DeleteIfOver();
    return;
  }
  if (ok) {
    ++messages_;
    const grpc::ByteBuffer message = std::exchange(message_, {});
    if (state_ == State::kOpen) {
      const Status status = handler_->OnMessage(message);
      if (!status.ok()) End(status);
    }
  } else if (messages_ == 0) {
    // Where the message was too large or the client has gone, gRPC has ended the call already.
    End(InvalidArgumentError(call_.method() + ": a message is needed and none came"));
  } else {
    End({});
  }
  if (ok && handler_->reads_on() && idle()) ReadNext();
}

void Call::Send(grpc::ByteBuffer message, int kind) {
  if (over_ || state_ != State::kOpen) return;
  if (kind != 0 && !waiting_.empty() && waiting_.back().kind == kind) {
    waiting_.back().bytes = std::move(message);
  } else {
    waiting_.push_back({std::move(message), kind});
  }
  Pump();
}

void Call::End(const Status& status, double retry_seconds) {
  if (over_ || state_ != State::kOpen) return;
  status_ = ToGrpcStatus(status);
  if (retry_seconds > 0) {
    call_.AddTrailingMetadata(kRetryPushback, std::to_string(std::llround(retry_seconds * 1000)));
  }
  state_ = State::kEnding;
  Pump();
}

void Call::Pump() {
  if (write_outstanding_ || over_ || state_ == State::kFinishing) return;
  const bool ending = state_ == State::kEnding;
  if (waiting_.empty()) {
    if (!ending) return;
    state_ = State::kFinishing;
    write_outstanding_ = true;
    stream_.Finish(status_, &finished_);
    return;
  }
  const grpc::ByteBuffer bytes = std::move(waiting_.front().bytes);
  waiting_.pop_front();
  bytes_outstanding_ = bytes.Length();
  context_.bytes_outstanding += bytes_outstanding_;
  write_outstanding_ = true;
  if (ending && waiting_.empty()) {
    state_ = State::kFinishing;
    stream_.WriteAndFinish(bytes, grpc::WriteOptions(), status_, &finished_);
  } else {
    stream_.Write(bytes, &written_);
  }
}

void Call::Written(bool ok) {
  write_outstanding_ = false;
  context_.bytes_outstanding -= std::exchange(bytes_outstanding_, 0);
  if (ok) {
    Pump();
    if (idle() && handler_->reads_on()) ReadNext();
  } else {              // the client is gone: Over comes, or has come
    call_.TryCancel();  // it comes for certain
    waiting_.clear();
    state_ = State::kFinishing;
  }
  DeleteIfOver();
}

void Call::Finished(bool /*ok*/) {
  write_outstanding_ = false;
  DeleteIfOver();
}

void Call::Over(bool /*ok*/) {
  over_ = true;
  waiting_.clear();
  if (handler_ != nullptr) handler_->OnGone();
  DeleteIfOver();
}

void Call::DeleteIfOver() {
  if (over_ && !read_outstanding_ && !write_outstanding_) delete this;
}

}  // namespace thimble
