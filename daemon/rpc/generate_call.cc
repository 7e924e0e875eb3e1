#include "daemon/rpc/generate_call.h"

#include <functional>
#include <utility>

#include "daemon/rpc/convert.h"

namespace thimble {

void GenerateCall::Await(RpcContext& context) {
  auto* call = new GenerateCall(context);
  call->call_.AsyncNotifyWhenDone(&call->over_tag_);
  context.service.RequestGenerate(&call->call_, &call->request_, &call->writer_, context.queue,
                                  context.queue, &call->accepted_);
}

GenerateCall::GenerateCall(RpcContext& context) : context_(context) { ++context_.calls; }

GenerateCall::~GenerateCall() {
  --context_.calls;
  if (state_ != State::kAwaiting) --context_.streams;
}

void GenerateCall::Accepted(bool ok) {
  if (!ok) {  // the server stops; a call that never started is never told that it is over
    delete this;
    return;
  }
  state_ = State::kStreaming;
  ++context_.streams;
  if (context_.stopping.empty()) Await(context_);
  const Status status = Submit();
  request_.Clear();
  if (!status.ok()) End(status);
}

Status GenerateCall::Submit() {
  if (!context_.stopping.empty()) return UnavailableError(context_.stopping);
  if (context_.streams > context_.max_streams) {
    return ResourceExhaustedError(std::to_string(context_.max_streams) +
                                  " calls are open already; no more are accepted");
  }
  THIMBLE_ASSIGN_OR_RETURN(GenerationRequest request,
                           ToGenerationRequest(request_, context_.services));
  seed_ = request.sampling.seed;
  log_probabilities_ = request_.log_probabilities();
  request.client = std::hash<std::string>()(call_.peer());
  submitted_ = true;  // before: the scheduler may tell everything, OnDone included, from within
  const Result<uint64_t> number = context_.services.scheduler.Submit(std::move(request), this);
  if (!number.ok()) {
    submitted_ = false;
    return number.status();
  }
  number_ = *number;
  return {};
}

void GenerateCall::OnQueued(uint32_t position, double /*wait_seconds*/) {
  Send(QueuedEvent(position), true);
}

void GenerateCall::OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) {
  Send(StartedEvent(prompt_tokens, cached_prompt_tokens, seed_));
}

void GenerateCall::OnPromptProgress(uint32_t done, uint32_t total) {
  Send(PromptProgressEvent(done, total), true);
}

void GenerateCall::OnToken(uint32_t index, TokenId id, const std::string& text,
                           float log_probability) {
  Send(TokenEvent(index, id, text,
                  log_probabilities_ ? std::optional<float>(log_probability) : std::nullopt));
}

void GenerateCall::OnTail(const std::string& text) { tail_ += text; }

void GenerateCall::OnDone(const RequestResult& result) {
  submitted_ = false;
  // UNAVAILABLE: the daemon stops and the request goes on after its next start. It is not done.
  if (result.error.code() != StatusCode::kUnavailable) Send(DoneEvent(result, tail_));
  End(result.error);
}

bool GenerateCall::CanAccept() const { return waiting_.size() < context_.max_events; }

void GenerateCall::Send(v1::GenerateEvent event, bool newest_only) {
  if (over_ || state_ != State::kStreaming) return;
  if (newest_only && !waiting_.empty() && waiting_.back().event_case() == event.event_case()) {
    waiting_.back() = std::move(event);
  } else {
    waiting_.push_back(std::move(event));
  }
  Pump();
}

void GenerateCall::End(const Status& status) {
  if (over_ || state_ != State::kStreaming) return;
  status_ = ToGrpcStatus(status);
  state_ = State::kEnding;
  Pump();
}

void GenerateCall::Pump() {
  if (op_outstanding_ || over_ || state_ == State::kFinishing) return;
  if (!waiting_.empty()) {
    // Serialised before Write returns.
    writer_.Write(waiting_.front(), &written_);
    waiting_.pop_front();
    op_outstanding_ = true;
  } else if (state_ == State::kEnding) {
    state_ = State::kFinishing;
    writer_.Finish(status_, &finished_);
    op_outstanding_ = true;
  }
}

void GenerateCall::Written(bool ok) {
  op_outstanding_ = false;
  if (ok) {
    Pump();
  } else {              // the client is gone: Over comes, or has come
    call_.TryCancel();  // it comes for certain
    waiting_.clear();
    state_ = State::kFinishing;
  }
  DeleteIfOver();
}

void GenerateCall::Finished(bool /*ok*/) {
  op_outstanding_ = false;
  DeleteIfOver();
}

void GenerateCall::Over(bool /*ok*/) {
  over_ = true;
  waiting_.clear();
  if (std::exchange(submitted_, false)) context_.services.scheduler.ClientGone(number_);
  DeleteIfOver();
}

void GenerateCall::DeleteIfOver() {
  if (over_ && !op_outstanding_) delete this;
}

}  // namespace thimble
