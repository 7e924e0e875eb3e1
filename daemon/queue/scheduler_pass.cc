// Passes: composing one, taking what it has computed, and finding out whose fault a failure is.
#include <algorithm>
#include <span>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {

void SchedulerImpl::BeginPass() {
  candidates_.clear();
  candidate_requests_.clear();
  LiveRequest* suspect = nullptr;
  for (const auto& request : requests_) {
    if (!request->runnable()) continue;
    if (request->suspect && suspect == nullptr) suspect = request.get();
    candidate_requests_.push_back(request.get());
  }
  if (suspect != nullptr) candidate_requests_.assign(1, suspect);
  for (const LiveRequest* request : candidate_requests_) {
    const auto n_tokens = static_cast<uint32_t>(request->tokens.size());
    candidates_.push_back({request->number, n_tokens - request->sequence.n_tokens});
  }
  composer_.Compose(candidates_, &shares_);
  if (shares_.empty()) return;

  pass_began_ = options_.clock();
  pass_has_prompt_ = false;
  for (const PassShare& share : shares_) {
    pass_has_prompt_ |= share.rows > 1;
    LiveRequest& request = *candidate_requests_[share.candidate];
    PassItem item;
    item.sequence = &request.sequence;
    item.tokens =
        std::span<const int32_t>(request.tokens).subspan(request.sequence.n_tokens, share.rows);
    if (share.wants_logits) {
      item.n_logits = 1;
      item.sink = &*request.sampler;
      const std::span<const TokenId> banned = request.options.ignore_eos
                                                  ? std::span(tokenizer_.end_tokens())
                                                  : std::span<const TokenId>();
      request.sampler->Begin(request.generated(), request.tokens, banned);
    }
    items_.push_back(item);
    in_pass_.push_back(&request);
  }
  if (const Status begun = runner_.Begin(items_); !begun.ok()) PassFailed(begun);
}

void SchedulerImpl::PassFailed(const Status& status) {
  if (runner_.running()) runner_.Abort();
  const bool alone = in_pass_.size() == 1;
  candidate_requests_.assign(in_pass_.begin(), in_pass_.end());
  items_.clear();
  in_pass_.clear();
  for (LiveRequest* request : candidate_requests_) {
    if (request == nullptr) continue;
    if (alone) {
      Fail(*request, status);
    } else {
      request->suspect = true;
    }
  }
}

void SchedulerImpl::LeavePass(const LiveRequest& request) {
  const auto at = std::find(in_pass_.begin(), in_pass_.end(), &request);
  if (at == in_pass_.end()) return;
  *at = nullptr;
  runner_.Drop(static_cast<size_t>(at - in_pass_.begin()));
  const bool all_gone =
      std::all_of(in_pass_.begin(), in_pass_.end(), [](const auto* r) { return r == nullptr; });
  if (all_gone) {
    if (runner_.running()) runner_.Abort();
    items_.clear();
    in_pass_.clear();
  }
}

void SchedulerImpl::PassDone() {
  ints_.clear();
  emitted_.clear();
  emitters_.clear();
  // The pass is over: what ends from here on does not leave it.
  for (size_t i = 0; i < items_.size(); ++i) {
    LiveRequest* request = in_pass_[i];
    in_pass_[i] = nullptr;
    if (request == nullptr || !TakeRows(*request, items_[i])) continue;
    const size_t begin = ints_.size();  // reserved: the spans stay valid
    AppendTokenInts(request->tokens.back(), request->log_probabilities.back(), &ints_);
    emitted_.push_back({request->number, (request->generated() - 1) * kJournalIntsPerToken,
                        std::span<const int32_t>(ints_).subspan(begin)});
    emitters_.push_back(request);
  }
  items_.clear();
  in_pass_.clear();
  // Durable before anyone is told.
  const Status journaled = emitted_.empty() ? Status() : journal_.AppendTokens(emitted_);
  const double now = options_.clock();
  estimate_.Measured(pass_has_prompt_, now - pass_began_);
  for (LiveRequest* request : emitters_) {
    if (!journaled.ok()) {
      request->tokens.pop_back();
      request->log_probabilities.pop_back();
      Fail(*request, journaled);
      continue;
    }
    ++totals_.generated_tokens_total;
    if (request->last_token_at >= 0) {
      totals_.token_interval_seconds.Observe(now - request->last_token_at);
    } else if (request->generated() == 1) {  // else: the first one since the daemon's restart
      totals_.first_token_seconds.Observe(now - request->accepted_at);
    }
    if (request->first_token_at < 0) request->first_token_at = now;
    request->last_token_at = now;
    Tell(*request, 1, true);
    if (request->state != State::kActive) continue;
    if (const auto reason = EndAfter(*request)) End(*request, *reason);
  }
}

bool SchedulerImpl::TakeRows(LiveRequest& request, const PassItem& item) {
  request.suspect = false;
  const uint32_t end = request.sequence.n_tokens;
  const auto begin = static_cast<uint32_t>(end - item.tokens.size());
  if (begin < request.n_prompt) {
    const uint32_t done = std::min(end, request.n_prompt);
    totals_.prompt_tokens_total += done - begin;
    if (request.sink != nullptr) request.sink->OnPromptProgress(done, request.n_prompt);
  }
  if (item.n_logits == 0) return false;

  const Result<Sampler::Choice> choice = request.sampler->Finish();
  if (!choice.ok()) {
    Fail(request, choice.status());
    return false;
  }
  const std::vector<TokenId>& end_tokens = tokenizer_.end_tokens();
  if (std::find(end_tokens.begin(), end_tokens.end(), choice->token) != end_tokens.end()) {
    End(request, FinishReason::kEndOfText);
    return false;
  }
  const Result<std::string> bytes = tokenizer_.TokenBytes(choice->token, false);
  if (!bytes.ok()) {
    Fail(request, bytes.status());
    return false;
  }
  std::string text;
  request.stop.Push(*bytes, &text);
  request.tokens.push_back(choice->token);
  request.log_probabilities.push_back(choice->log_probability);
  return true;
}

std::optional<FinishReason> SchedulerImpl::EndAfter(const LiveRequest& request) const {
  if (request.stop.stopped()) return FinishReason::kStop;
  if (request.generated() >= request.options.max_tokens) return FinishReason::kLength;
  if (request.tokens.size() >= options_.context_tokens) return FinishReason::kContext;
  return std::nullopt;
}

}  // namespace thimble
