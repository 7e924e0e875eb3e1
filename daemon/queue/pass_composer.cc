#include "daemon/queue/pass_composer.h"

#include <algorithm>

namespace thimble {
namespace {

// Index of the first candidate behind `number`, going round.
size_t FirstAfter(std::span<const PassCandidate> candidates, uint64_t number) {
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].number > number) return i;
  }
  return 0;
}

}  // namespace

uint32_t PassComposer::WholeBlocks(uint32_t done, uint32_t take, uint32_t block_tokens) const {
  const uint32_t end = (done + take) / block_tokens * block_tokens;
  if (end > done) return end - done;
  return prompt_had_row_ ? 0 : take;
}

void PassComposer::Compose(std::span<const PassCandidate> candidates,
                           std::vector<PassShare>* shares) {
  shares->clear();
  const size_t n = candidates.size();
  const auto tokens = static_cast<uint32_t>(std::count_if(
      candidates.begin(), candidates.end(), [](const auto& c) { return c.pending == 1; }));
  const bool prompts = std::any_of(candidates.begin(), candidates.end(),
                                   [](const auto& c) { return c.pending > 1; });
  const uint32_t kept = prompts && (limits_.max_rows > 1 || !prompt_had_row_) ? 1 : 0;
  const uint32_t served = std::min({tokens, limits_.max_rows - kept, limits_.max_logit_rows});

  const size_t first_token = served < tokens ? FirstAfter(candidates, token_turn_) : 0;
  for (size_t i = 0; i < n && shares->size() < served; ++i) {
    const size_t c = (first_token + i) % n;
    if (candidates[c].pending != 1) continue;
    shares->push_back({c, 1, true});
    token_turn_ = candidates[c].number;
  }

  uint32_t logit_rows = limits_.max_logit_rows - served;
  uint32_t rows = std::min(limits_.prompt_chunk, limits_.max_rows - served);
  if (served > 0) rows = std::min(rows, limits_.shared_prompt_rows);
  // Of fewer rows too many would be left out: of 31 all but one, every second pass.
  const uint32_t block_tokens = rows < 2 * limits_.block_tokens ? 1 : limits_.block_tokens;
  const size_t first_prompt = FirstAfter(candidates, prompt_turn_);
  prompt_had_row_ = false;
  for (size_t i = 0; i < n && rows > 0; ++i) {
    const size_t c = (first_prompt + i) % n;
    const uint32_t pending = candidates[c].pending;
    if (pending <= 1) continue;
    uint32_t take = std::min(pending, rows);
    // Without a row of logits left, all but the last token are computed now.
    if (take == pending && logit_rows == 0) --take;
    const bool wants_logits = take == pending;
    if (!wants_logits) take = WholeBlocks(candidates[c].done, take, block_tokens);
    if (take == 0) continue;
    if (wants_logits) --logit_rows;
    shares->push_back({c, take, wants_logits});
    rows -= take;
    if (!prompt_had_row_) prompt_turn_ = candidates[c].number;
    prompt_had_row_ = true;
  }
}

}  // namespace thimble
