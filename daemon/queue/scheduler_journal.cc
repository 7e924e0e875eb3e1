// What the journal is given: tokens, about once a second and before an end that is kept; ends.
#include <algorithm>
#include <utility>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {

bool SchedulerImpl::JournalIsDue(double now) const {
  if (now - journaled_at_ >= kJournalSeconds) return true;
  // After its end a request takes no more tokens.
  return std::ranges::any_of(emitters_, [](const Emission& emission) {
    return emission.end && Keeps(*emission.request, *emission.end);
  });
}

Status SchedulerImpl::JournalTokens() {
  ints_.clear();
  emitted_.clear();
  size_t missing = 0;
  for (const auto& request : requests_) {
    if (request->takes_tokens()) missing += request->generated() - request->journaled;
  }
  ints_.reserve(missing * kJournalIntsPerToken);  // the spans stay valid
  for (const auto& request : requests_) {
    if (!request->takes_tokens() || request->journaled == request->generated()) continue;
    const size_t begin = ints_.size();
    for (uint32_t t = request->journaled; t < request->generated(); ++t) {
      AppendTokenInts(request->tokens[request->n_prompt + t], request->log_probabilities[t],
                      &ints_);
    }
    emitted_.push_back({request->number, request->journaled * kJournalIntsPerToken,
                        std::span<const int32_t>(ints_).subspan(begin)});
  }
  if (!emitted_.empty()) THIMBLE_RETURN_IF_ERROR(journal_.AppendTokens(emitted_));
  for (const auto& request : requests_) {
    if (request->takes_tokens()) request->journaled = request->generated();
  }
  journaled_at_ = options_.clock();
  return {};
}

void SchedulerImpl::JournalFailed(const Status& status) {
  candidate_requests_.clear();
  for (const auto& request : requests_) {
    if (request->takes_tokens() && request->journaled < request->generated()) {
      candidate_requests_.push_back(request.get());
    }
  }
  for (const Emission& emission : emitters_) TakeBack(*emission.request, emission.n_tokens);
  for (LiveRequest* request : candidate_requests_) Fail(*request, status);
  std::erase_if(emitters_, [](const Emission& e) { return !e.request->takes_tokens(); });
}

void SchedulerImpl::TakeBack(LiveRequest& request, uint32_t n_tokens) {
  request.tokens.resize(request.tokens.size() - n_tokens);
  request.log_probabilities.resize(request.log_probabilities.size() - n_tokens);
}

// Without a name nobody can ask for the result; a request that was cancelled, or whose client
// learns of its error now, may be sent again under its name.
bool SchedulerImpl::Keeps(const LiveRequest& request, FinishReason reason) {
  return !request.options.name.empty() && reason != FinishReason::kCancelled &&
         (reason != FinishReason::kError || request.sink == nullptr);
}

void SchedulerImpl::Record(const LiveRequest& request) {
  const RequestResult& result = request.result;
  std::optional<std::string> outcome;
  if (Keeps(request, result.reason)) outcome = EncodeOutcome(result);
  RecordEnd(request.number, std::move(outcome));
}

void SchedulerImpl::RecordEnd(uint64_t number, std::optional<std::string> outcome) {
  if (unrecorded_.size() == kMaxUnrecorded) unrecorded_.erase(unrecorded_.begin());
  unrecorded_.push_back({number, std::move(outcome)});
  RecordPending();
}

// What the journal does not take (a full disk) is tried again with the next end or submission;
// where that never comes the request is taken up at the next start, and ends again.
void SchedulerImpl::RecordPending() {
  std::erase_if(unrecorded_, [this](const Unrecorded& end) {
    const Status status = end.outcome
                              ? journal_.Finish(end.number, *end.outcome, options_.keep_finished)
                              : journal_.Remove(end.number);
    // Neither can succeed later: it is not there, or has ended.
    return status.ok() || status.code() == StatusCode::kNotFound ||
           status.code() == StatusCode::kFailedPrecondition;
  });
}

}  // namespace thimble
