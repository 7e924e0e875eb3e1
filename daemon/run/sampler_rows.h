// The rows of one request that want logits in one pass: that of its next token and, behind it, one
// for each draft token, a guess at what the text goes on with. A row is sampled as if the drafts
// that lead to it were the text already: the same history for the penalties, the same draw for its
// index. So the rows give what single rows would have given one after the other, bit for bit, as
// long as the token that is drawn is a draft that follows; the first that is none ends the run, and
// all other drafts are refused (Leviathan et al., arXiv:2211.17192, with drafts that are certain of
// themselves).
// Called by: the scheduler, one for each active request. Memory, fixed at construction: a Sampler a
// row; rows beyond the first are made while all together hold at most kMostBytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "daemon/run/draft_tree.h"
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
  // max_drafts() of them. `banned` must stay valid until the pass is over.
  void Begin(uint32_t index, std::span<const int32_t> history, std::span<const int32_t> banned,
             const DraftTree& drafts);

  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override;

  // Samples. All but the refused drafts are kept; of a pass of fewer rows than Begin said, the
  // last ones were left out.
  uint32_t TokensToKeep(uint32_t n_tokens) override;
  [[nodiscard]] std::span<const uint8_t> RowsToKeep() const override { return kept_; }

  // After TokensToKeep: what follows the history, accepted drafts and one more, in order. The error
  // is Sampler's, where not even the first row could be sampled.
  [[nodiscard]] Result<std::span<const Sampler::Choice>> Choices() const;
  // Of the drafts, how many the pass had rows for, and how many were accepted.
  [[nodiscard]] uint32_t tried() const { return n_tried_; }
  [[nodiscard]] uint32_t accepted() const { return static_cast<uint32_t>(kept_.size()) - 1; }
  // What the model thinks may follow a row of the last Begin, refused ones too: Sampler's.
  [[nodiscard]] std::span<const int32_t> Likeliest(uint32_t row) const {
    return rows_[row].Likeliest();
  }

 private:
  std::vector<Sampler> rows_;  // at least 1
  std::vector<Sampler::Choice> choices_;
  DraftTree drafts_;
  uint32_t n_tried_ = 0;
  std::vector<uint8_t> kept_ = {0};  // at least row 0; capacity reserved
  Status status_;
};

}  // namespace thimble
