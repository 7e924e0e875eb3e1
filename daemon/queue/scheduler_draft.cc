// Speculation in the scheduler: which requests of a pass get draft rows, and what is learned from
// it.
#include <algorithm>
#include <array>
#include <span>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {

void SchedulerImpl::AddDrafts(bool wanted) {
  wanted = wanted && options_.draft_tokens > 0;
  offers_.clear();
  uint32_t rows = 0;
  uint32_t logit_rows = 0;
  for (const PassShare& share : shares_) {
    rows += share.rows;
    logit_rows += share.wants_logits ? 1 : 0;
    LiveRequest& request = *candidate_requests_[share.candidate];
    request.guess.size = 0;
    request.drafts.size = 0;
    if (!wanted || !share.wants_logits || request.sampler->max_drafts() == 0) continue;
    // The row of the last token brings one token; each accepted draft one more.
    const uint64_t left = std::min<uint64_t>(
        uint64_t{request.n_prompt} + request.options.max_tokens, options_.context_tokens);
    if (request.tokens.size() + 1 >= left) continue;
    request.guess = GuessNext(request.tokens, options_.draft_tokens);
    // Draft rows follow a single row: a prompt's last chunk has rows enough.
    if (share.rows > 1) continue;
    offers_.push_back({&request.guess, &request.guesses, request.tokens.back(),
                       std::min({options_.draft_tokens, request.sampler->max_drafts(),
                                 static_cast<uint32_t>(left - request.tokens.size() - 1)}),
                       request.tokens.size() < request.chain_until, &request.drafts});
  }
  const uint32_t room =
      std::min(options_.max_rows - std::min(options_.max_rows, rows),
               options_.max_logit_rows - std::min(options_.max_logit_rows, logit_rows));
  draft_grants_.Grant(offers_, successors_, rows, room, pass_cost_);
}

void SchedulerImpl::ObserveDrafts(LiveRequest& request, std::span<const Sampler::Choice> choices) {
  const SamplerRows& rows = *request.sampler;
  totals_.draft_tokens_total += rows.tried();
  totals_.draft_tokens_accepted_total += rows.accepted();
  if (rows.max_drafts() == 0) return;
  if (rows.tried() < request.drafts.size) {
    request.chain_until = static_cast<uint32_t>(request.tokens.size()) + kKvBlockTokens;
  }
  std::array<int32_t, kMaxDrafts + 1> drawn{};
  const size_t n = std::min(choices.size(), drawn.size());
  for (size_t i = 0; i < n; ++i) drawn[i] = choices[i].token;
  request.guesses.Observe(request.guess, successors_, request.tokens.back(),
                          std::span(drawn).first(n));
  request.guess.size = 0;
}

void SchedulerImpl::LearnSuccessors(const Emission& emission) {
  const LiveRequest& request = *emission.request;
  const SamplerRows& rows = *request.sampler;
  const auto learn = [&](uint32_t row) {
    const int32_t token = row == 0 ? request.tokens[request.tokens.size() - emission.n_tokens - 1]
                                   : request.drafts.tokens[row - 1];
    successors_.Learn(token, rows.Likeliest(row));
  };
  // What the text itself tells counts more than what a refused draft does: it comes last.
  for (uint32_t row = 1; row <= rows.tried(); ++row) learn(row);
  for (const uint8_t row : rows.RowsToKeep()) learn(row);
}

void SchedulerImpl::MeasurePass() {
  uint32_t rows = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    // Rows of a prompt cost less than rows that want logits, and leave the resident set to be read
    // again.
    if (in_pass_[i] == nullptr || items_[i].n_logits != items_[i].tokens.size()) return;
    rows += 1 + in_pass_[i]->sampler->tried();
  }
  pass_cost_.Observe(rows, options_.clock() - pass_began_);
}

}  // namespace thimble
