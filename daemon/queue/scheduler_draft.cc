// Speculation in the scheduler: which requests of a pass get draft rows, and what is learned from
// it.
#include <algorithm>
#include <span>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {

void SchedulerImpl::AddDrafts() {
  if (options_.draft_tokens == 0) return;
  offers_.clear();
  offer_shares_.clear();
  uint32_t rows = 0;
  uint32_t logit_rows = 0;
  for (size_t s = 0; s < shares_.size(); ++s) {
    const PassShare& share = shares_[s];
    rows += share.rows;
    logit_rows += share.wants_logits ? 1 : 0;
    LiveRequest& request = *candidate_requests_[share.candidate];
    request.guess.size = 0;
    if (!share.wants_logits || request.sampler->max_drafts() == 0) continue;
    // The row of the last token brings one token; each accepted draft one more.
    const uint64_t left = std::min<uint64_t>(
        uint64_t{request.n_prompt} + request.options.max_tokens, options_.context_tokens);
    if (request.tokens.size() + 1 >= left) continue;
    request.guess = GuessNext(request.tokens, options_.draft_tokens);
    // Draft rows follow a single row: a prompt's last chunk has rows enough.
    if (share.rows > 1 || request.guess.size == 0) continue;
    offers_.push_back({&request.guess, &request.guesses,
                       std::min({request.guess.size, request.sampler->max_drafts(),
                                 static_cast<uint32_t>(left - request.tokens.size() - 1)})});
    offer_shares_.push_back(s);
  }
  const uint32_t room =
      std::min(options_.max_rows - std::min(options_.max_rows, rows),
               options_.max_logit_rows - std::min(options_.max_logit_rows, logit_rows));
  GrantDrafts(offers_, rows, room, pass_cost_);
  for (size_t i = 0; i < offers_.size(); ++i) shares_[offer_shares_[i]].drafts = offers_[i].granted;
}

void SchedulerImpl::LearnFrom(LiveRequest& request, const PassItem& item,
                              std::span<const Sampler::Choice> choices) {
  totals_.draft_tokens_total += item.n_logits - 1;
  totals_.draft_tokens_accepted_total += request.sampler->accepted();
  std::array<int32_t, kMaxDrafts + 1> drawn{};
  const size_t n = std::min(choices.size(), drawn.size());
  for (size_t i = 0; i < n; ++i) drawn[i] = choices[i].token;
  request.guesses.Observe(request.guess, std::span(drawn).first(n));
  request.guess.size = 0;
}

void SchedulerImpl::MeasurePass() {
  uint32_t rows = 0;
  for (const PassItem& item : items_) {
    // Rows of a prompt cost less than rows that want logits, and leave the resident set to be read
    // again.
    if (item.n_logits != item.tokens.size()) return;
    rows += item.n_logits;
  }
  if (std::find(in_pass_.begin(), in_pass_.end(), nullptr) != in_pass_.end()) return;
  pass_cost_.Observe(rows, options_.clock() - pass_began_);
}

}  // namespace thimble
