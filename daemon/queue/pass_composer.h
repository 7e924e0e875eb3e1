// Which rows share the next pass: one for each request that generates, then prompt rows for the
// request whose turn it is and, where it needs fewer than there is room for, for those after it.
// Where tokens of others are in the pass, and so wait for the prompt's rows, these are fewer. In a
// pass with prompt rows for two blocks of keys and values or more, a prompt that is not computed
// to its end stops where a block does: rows of a block that is not full have no place in RAM beside
// so many, would go to the disk one by one, and come back in the next pass.
// Called by: the scheduler, once a pass. Memory: none of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thimble {

struct PassLimits {
  uint32_t max_rows = 64;                    // at least 1
  uint32_t max_logit_rows = 4;               // at least 1
  uint32_t prompt_chunk = 64;                // prompt rows of one pass, at least 1
  uint32_t block_tokens = 1;                 // of keys and values, at least 1
  uint32_t shared_prompt_rows = UINT32_MAX;  // prompt_chunk beside tokens of others, at least 1
};

// A request that could go on. `pending`: tokens that are known and not computed yet, behind `done`
// that are; the last of them wants logits. One with nothing pending is passed over.
struct PassCandidate {
  uint64_t number = 0;
  uint32_t pending = 0;
  uint32_t done = 0;
};

struct PassShare {
  size_t candidate = 0;  // index
  uint32_t rows = 0;     // the first ones of its pending tokens
  bool wants_logits = false;
};

class PassComposer {
 public:
  explicit PassComposer(const PassLimits& limits) : limits_(limits) {}

  // `candidates` by rising number. Every request with one pending token is served in every pass
  // that has a row and a logits row for it; where there are too few, and among prompts, turns go
  // round. While there is a prompt, one row of a pass (of every second pass of a single row) is
  // kept for it.
  void Compose(std::span<const PassCandidate> candidates, std::vector<PassShare>* shares);

 private:
  // Of `take` rows, fewer than are pending, those that end with a block of `block_tokens`; where
  // none does, all for the pass's first prompt, which has to get on, and none for another.
  [[nodiscard]] uint32_t WholeBlocks(uint32_t done, uint32_t take, uint32_t block_tokens) const;

  const PassLimits limits_;
  uint64_t token_turn_ = 0;  // number of the last request served when there were too few rows
  uint64_t prompt_turn_ =
      0;  // number of the request that was first in the last pass with prompt rows
  bool prompt_had_row_ = false;
};

}  // namespace thimble
