// The rows of one request that want logits in one pass: that of its next token and, behind it, one
// for each draft token, a guess at what the text goes on with. Row j is sampled as if the drafts
// before it were the text already: the same history for the penalties, the same draw for its index.
// So as long as each drawn token is the next row's draft, the rows give what single rows would have
// given one after the other, bit for bit; the first that is not ends the run, and the drafts behind
// it are refused (Leviathan et al., arXiv:2211.17192, with drafts that are certain of themselves).
// Called by: the scheduler, one for each active request. Memory, fixed at construction: a Sampler a
// row; rows beyond the first are made while all together hold at most kMostBytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "daemon/run/logits_sink.h"
#include "daemon/run/sampler.h"
#include "daemon/run/sampling_options.h"
#include "storage/base/status.h"
#include "storage/stage_store.h"

namespace thimble {

class SamplerRows final : public LogitsSink {
 public:
  static constexpr size_t kMostBytes = size_t{8} * 1024;

  // As Sampler's; rows for at most `max_drafts` drafts, none where sampling is wide.
  SamplerRows(const SamplingOptions& options, uint32_t vocab_size, uint32_t slot, StageStore* store,
              uint32_t max_drafts);
  SamplerRows(const SamplerRows&) = delete;
  SamplerRows& operator=(const SamplerRows&) = delete;

  // Drafts that there are rows for.
  [[nodiscard]] uint32_t max_drafts() const { return static_cast<uint32_t>(rows_.size()) - 1; }

  // Before the pass that computes the logits of token `index` and of the drafts behind it, at most
  // max_drafts() of them. `drafts` and `banned` must stay valid until the pass is over.
  void Begin(uint32_t index, std::span<const int32_t> history, std::span<const int32_t> banned,
             std::span<const int32_t> drafts);

  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override;

  // Samples. All but the refused drafts are kept.
  uint32_t TokensToKeep(uint32_t n_tokens) override;

  // After TokensToKeep: what follows the history, accepted drafts and one more, in order. The error
  // is Sampler's, where not even the first row could be sampled.
  [[nodiscard]] Result<std::span<const Sampler::Choice>> Choices() const;
  // Of the pass's drafts, how many were accepted.
  [[nodiscard]] uint32_t accepted() const { return accepted_; }

 private:
  std::vector<Sampler> rows_;  // at least 1
  std::vector<Sampler::Choice> choices_;
  std::span<const int32_t> drafts_;
  uint32_t accepted_ = 0;
  Status status_;
};

}  // namespace thimble
