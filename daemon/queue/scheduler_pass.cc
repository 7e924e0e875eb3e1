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
    const uint32_t done = request->sequence.n_tokens;
    candidates_.push_back({request->number, n_tokens - done, done});
  }
  composer_.Compose(candidates_, &shares_);
  if (shares_.empty()) return;
  AddDrafts(suspect == nullptr);

  pass_began_ = options_.clock();
  pass_prompt_rows_ = 0;
  for (const PassShare& share : shares_) {
    if (share.rows > 1) pass_prompt_rows_ += share.rows;
    LiveRequest& request = *candidate_requests_[share.candidate];
    PassItem item;
    item.sequence = &request.sequence;
    item.tokens =
        std::span<const int32_t>(request.tokens).subspan(request.sequence.n_tokens, share.rows);
    if (share.wants_logits) {
      item.n_logits = 1 + request.drafts.size;
      item.sink = &*request.sampler;
      const std::span<const TokenId> banned = request.options.ignore_eos
                                                  ? std::span(tokenizer_.end_tokens())
                                                  : std::span<const TokenId>();
      const DraftTree& drafts = request.drafts;
      if (drafts.size > 0) {
        request.row_tokens.assign(1, request.tokens.back());
        request.row_tokens.insert(request.row_tokens.end(), drafts.tokens.begin(),
                                  drafts.tokens.begin() + drafts.size);
        item.tokens = request.row_tokens;
        if (drafts.ChainSize() < drafts.size) item.drafts = &drafts;
      }
      request.sampler->Begin(request.generated(), request.tokens, banned, drafts);
    }
    items_.push_back(item);
    in_pass_.push_back(&request);
  }
  if (const Status begun = runner_.Begin(items_); !begun.ok()) PassFailed(begun);
}

void SchedulerImpl::PassFailed(const Status& status) {
  if (runner_.running()) runner_.Abort();
  // Whose fault it is is clear where there were neither others nor drafts.
  const bool alone =
      in_pass_.size() == 1 && (in_pass_[0] == nullptr || in_pass_[0]->drafts.size == 0);
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
  emitters_.clear();
  MeasurePass();
  const double drawing = options_.clock();
  // The pass is over: what ends from here on does not leave it.
  for (size_t i = 0; i < items_.size(); ++i) {
    LiveRequest* request = in_pass_[i];
    in_pass_[i] = nullptr;
    if (request == nullptr) continue;
    const std::optional<Emission> emission = TakeRows(*request, items_[i]);
    if (!emission) continue;
    emitters_.push_back(*emission);
  }
  items_.clear();
  in_pass_.clear();
  for (const Emission& emission : emitters_) LearnSuccessors(emission);
  double now = options_.clock();
  if (!emitters_.empty()) totals_.sample_seconds.Observe(now - drawing);
  if (!emitters_.empty() && JournalIsDue(now)) {
    if (const Status status = JournalTokens(); !status.ok()) JournalFailed(status);
    now = options_.clock();
  }
  estimate_.Measured(pass_prompt_rows_, now - pass_began_);
  for (const Emission& emission : emitters_) Emit(emission, now);
}

void SchedulerImpl::Emit(const Emission& emission, double now) {
  LiveRequest& request = *emission.request;
  totals_.generated_tokens_total += emission.n_tokens;
  for (uint32_t i = 0; i < emission.n_tokens; ++i) {
    if (request.last_token_at >= 0) {
      totals_.token_interval_seconds.Observe(now - request.last_token_at);
    } else if (request.generated() == emission.n_tokens) {  // else: the first since a restart
      totals_.first_token_seconds.Observe(now - request.accepted_at);
    }
    if (request.first_token_at < 0) request.first_token_at = now;
    request.last_token_at = now;
  }
  Tell(request, emission.n_tokens, true);
  if (request.state == State::kActive && emission.end) End(request, *emission.end);
}

std::optional<SchedulerImpl::Emission> SchedulerImpl::TakeRows(LiveRequest& request,
                                                               const PassItem& item) {
  request.suspect = false;
  const bool samples = item.n_logits > 0;
  const uint32_t refused = samples ? item.n_logits - 1 - request.sampler->accepted() : 0;
  const uint32_t end = request.sequence.n_tokens;
  const auto begin = static_cast<uint32_t>(end - (item.tokens.size() - refused));
  if (begin < request.n_prompt) {
    const uint32_t done = std::min(end, request.n_prompt);
    totals_.prompt_tokens_total += done - begin;
    if (request.sink != nullptr) request.sink->OnPromptProgress(done, request.n_prompt);
  }
  if (!samples) return std::nullopt;

  const auto choices = request.sampler->Choices();
  if (!choices.ok()) {
    Fail(request, choices.status());
    return std::nullopt;
  }
  ObserveDrafts(request, *choices);
  return TakeChoices(request, *choices);
}

std::optional<SchedulerImpl::Emission> SchedulerImpl::TakeChoices(
    LiveRequest& request, std::span<const Sampler::Choice> choices) {
  const std::vector<TokenId>& end_tokens = tokenizer_.end_tokens();
  Emission emission{&request, 0, std::nullopt};
  for (const Sampler::Choice& choice : choices) {
    if (std::find(end_tokens.begin(), end_tokens.end(), choice.token) != end_tokens.end()) {
      emission.end = FinishReason::kEndOfText;
      break;
    }
    const Result<std::string> bytes = tokenizer_.TokenBytes(choice.token, false);
    if (!bytes.ok()) {
      TakeBack(request, emission.n_tokens);
      Fail(request, bytes.status());
      return std::nullopt;
    }
    std::string text;
    request.stop.Push(*bytes, &text);
    request.tokens.push_back(choice.token);
    request.log_probabilities.push_back(choice.log_probability);
    ++emission.n_tokens;
    emission.end = EndAfter(request);
    if (emission.end) break;
  }
  return emission;
}

std::optional<FinishReason> SchedulerImpl::EndAfter(const LiveRequest& request) const {
  if (request.stop.stopped()) return FinishReason::kStop;
  if (request.generated() >= request.options.max_tokens) return FinishReason::kLength;
  if (request.tokens.size() >= options_.context_tokens) return FinishReason::kContext;
  return std::nullopt;
}

}  // namespace thimble
