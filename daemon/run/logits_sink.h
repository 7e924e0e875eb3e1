// Where the logits stage delivers: the sampler, a file (`thimble logits`), a test.
#pragma once

#include <cstdint>
#include <span>

#include "storage/base/status.h"

namespace thimble {

class LogitsSink {
 public:
  virtual ~LogitsSink() = default;
  // Logits of ids [first_token, first_token + logits.size()) for row `row`, counted from 0 among
  // the rows of the item that want logits. Tiles come in rising order of ids.
  virtual Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) = 0;

  // Asked when every logit has been delivered, before the pass is committed: how many of the item's
  // `n_tokens` tokens become part of its sequence, the first ones unless its drafts are a tree.
  // Fewer than all where some were drafts that the logits have refused; at least 1. `n_tokens` are
  // fewer than the item had where the runner has left the last drafts out.
  virtual uint32_t TokensToKeep(uint32_t n_tokens) { return n_tokens; }
  // Where the drafts are a tree, after TokensToKeep: the rows of these tokens, from 0 on, each one
  // followed by a child of it.
  [[nodiscard]] virtual std::span<const uint8_t> RowsToKeep() const { return {}; }
};

}  // namespace thimble
