#include "daemon/run/sampler_rows.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <string>
#include <utility>

namespace thimble {

SamplerRows::SamplerRows(const SamplingOptions& options, uint32_t vocab_size, uint32_t slot,
                         StageStore* store, uint32_t max_drafts) {
  const size_t row_bytes = Sampler::RowBytes(options, vocab_size);
  size_t rows = 1;
  if (Sampler::Narrow(options)) {
    rows += std::min<size_t>(max_drafts, kMostBytes / row_bytes);
  }
  rows_.reserve(rows);
  for (size_t i = 0; i < rows; ++i) rows_.emplace_back(options, vocab_size, slot, store);
  choices_.reserve(rows);
  kept_.reserve(rows);
}

void SamplerRows::Begin(uint32_t index, std::span<const int32_t> history,
                        std::span<const int32_t> banned, const DraftTree& drafts) {
  assert(drafts.size <= max_drafts());
  drafts_ = drafts;
  n_tried_ = 0;
  kept_.assign(1, 0);
  choices_.clear();
  status_ = InternalError("sample: the pass is not over");
  std::array<int32_t, DraftTree::kMost> path{};
  for (uint32_t row = 0; row <= drafts.size; ++row) {
    const uint32_t depth = drafts.Depth(row);
    drafts.PathTo(row, &path);
    rows_[row].Begin(index + depth, history, banned, std::span(path).first(depth));
  }
}

Status SamplerRows::OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) {
  if (row > drafts_.size) {
    return InternalError("sample: logits of row " + std::to_string(row) + " of " +
                         std::to_string(drafts_.size + 1));
  }
  return rows_[row].OnLogits(0, first_token, logits);
}

uint32_t SamplerRows::TokensToKeep(uint32_t n_tokens) {
  status_ = {};
  // Prompt tokens come before the first row; with them there are no drafts.
  n_tried_ = std::min(drafts_.size, n_tokens - 1);
  uint32_t row = 0;
  while (true) {
    const Result<Sampler::Choice> choice = rows_[row].Finish();
    if (!choice.ok()) {
      // Of a later row: it is computed, and fails, again when its turn comes.
      if (row == 0) {
        status_ = choice.status();
      } else {
        kept_.pop_back();
      }
      break;
    }
    choices_.push_back(*choice);
    row = drafts_.Child(row, choice->token, n_tried_);
    if (row == 0) break;
    kept_.push_back(static_cast<uint8_t>(row));
  }
  return n_tokens - (n_tried_ - accepted());
}

Result<std::span<const Sampler::Choice>> SamplerRows::Choices() const {
  if (!status_.ok()) return status_;
  return std::span<const Sampler::Choice>(choices_);
}

}  // namespace thimble
