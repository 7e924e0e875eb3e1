#include "daemon/run/sampler_rows.h"

#include <algorithm>
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
}

void SamplerRows::Begin(uint32_t index, std::span<const int32_t> history,
                        std::span<const int32_t> banned, std::span<const int32_t> drafts) {
  assert(drafts.size() <= max_drafts());
  drafts_ = drafts;
  accepted_ = 0;
  choices_.clear();
  status_ = InternalError("sample: the pass is not over");
  for (uint32_t row = 0; row <= drafts.size(); ++row) {
    rows_[row].Begin(index + row, history, banned, drafts.first(row));
  }
}

Status SamplerRows::OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) {
  if (row > drafts_.size()) {
    return InternalError("sample: logits of row " + std::to_string(row) + " of " +
                         std::to_string(drafts_.size() + 1));
  }
  return rows_[row].OnLogits(0, first_token, logits);
}

uint32_t SamplerRows::TokensToKeep(uint32_t n_tokens) {
  status_ = {};
  for (uint32_t row = 0; row <= drafts_.size(); ++row) {
    const Result<Sampler::Choice> choice = rows_[row].Finish();
    if (!choice.ok()) {
      // Of a later row: it is computed, and fails, again when its turn comes.
      if (row == 0) status_ = choice.status();
      break;
    }
    choices_.push_back(*choice);
    if (row == drafts_.size() || choice->token != drafts_[row]) break;
    accepted_ = row + 1;
  }
  return n_tokens - (static_cast<uint32_t>(drafts_.size()) - accepted_);
}

Result<std::span<const Sampler::Choice>> SamplerRows::Choices() const {
  if (!status_.ok()) return status_;
  return std::span<const Sampler::Choice>(choices_);
}

}  // namespace thimble
