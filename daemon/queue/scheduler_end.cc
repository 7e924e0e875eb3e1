// How a request ends, and what its client is told.
#include <utility>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {

void SchedulerImpl::End(LiveRequest& request, FinishReason reason, Status error) {
  LeavePass(request);
  // What is kept of one that failed is what the journal has; nobody is told now.
  if (request.journaled < request.generated() && Keeps(request, reason) && !JournalTokens().ok()) {
    TakeBack(request, request.generated() - request.journaled);
  }
  const bool was_queued = request.state == State::kQueued;
  Release(request);
  const double now = options_.clock();
  RequestResult& result = request.result;
  result.reason = reason;
  result.error = std::move(error);
  result.prompt_tokens = request.n_prompt;
  result.cached_prompt_tokens = request.cached;
  result.generated_tokens = request.generated();
  result.timings.total = now - request.accepted_at;
  result.timings.queued = (request.started_at < 0 ? now : request.started_at) - request.accepted_at;
  if (request.first_token_at >= 0) {
    result.timings.first_token = request.first_token_at - request.accepted_at;
  }
  request.state = State::kEnded;
  Record(request);
  if (!result.error.ok() || !request.sink_is_behind()) TellDone(request);
  if (was_queued) TellQueuePositions();
}

void SchedulerImpl::Fail(LiveRequest& request, const Status& error) {
  // To a client UNAVAILABLE means that the request goes on later (Suspend).
  const bool unavailable = error.code() == StatusCode::kUnavailable;
  End(request, FinishReason::kError, unavailable ? InternalError(error.message()) : error);
}

void SchedulerImpl::Release(LiveRequest& request) {
  if (request.state != State::kActive) return;
  // An error leaves garbage that the next start removes.
  (void)kv_.CloseSequence(request.sequence);
  request.sampler.reset();
  slots_[request.slot] = false;
}

void SchedulerImpl::Tell(LiveRequest& request, uint32_t limit, bool at_once) {
  for (uint32_t n = 0; n < limit && request.sink_is_behind(); ++n) {
    const bool newest = request.told + 1 == request.generated();
    if (!(at_once && newest) && !request.sink->CanAccept()) return;
    const TokenId id = request.tokens[request.n_prompt + request.told];
    const Result<std::string> bytes = tokenizer_.TokenBytes(id, false);
    if (!bytes.ok()) {
      if (request.state == State::kActive) {
        Fail(request, bytes.status());
      } else {
        request.result.reason = FinishReason::kError;
        request.result.error = bytes.status();
        TellDone(request);
      }
      return;
    }
    const std::string text = request.text.Push(*bytes);
    const uint32_t index = request.told++;
    request.sink->OnToken(index, id, text, request.log_probabilities[index]);
  }
  if (request.state == State::kEnded && !request.sink_is_behind()) TellDone(request);
}

void SchedulerImpl::TellDone(LiveRequest& request) {
  request.state = State::kGone;
  RequestSink* sink = std::exchange(request.sink, nullptr);
  if (sink == nullptr) return;
  if (request.result.error.ok()) {
    if (const std::string tail = request.text.Flush(); !tail.empty()) sink->OnTail(tail);
  }
  if (request.forget_when_told) RecordEnd(request.number, std::nullopt);
  sink->OnDone(request.result);
}

void SchedulerImpl::Detach(LiveRequest& request) {
  request.sink = nullptr;
  request.told_started = false;
  request.told = 0;
  request.text = TextStream(request.options.stop);
}

}  // namespace thimble
