// How long a request will wait, from how long passes have taken: every active request gets a row of
// each pass, so one that has n tokens to go holds its slot for n passes, and for a pass for every
// chunk of its prompt before that, which takes longer by its rows. An estimate from above, for a
// text may end before its max_tokens; until the first pass without a prompt, of prompts' rows
// alone.
//
// Called by: the scheduler. Memory: 8 bytes a slot.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thimble {

class WaitEstimate {
 public:
  // `prompt_chunk`: prompt rows of a pass beside tokens of others.
  WaitEstimate(uint32_t max_active, uint32_t prompt_chunk);

  // A pass with so many rows of prompts took so long.
  void Measured(uint32_t prompt_rows, double seconds);

  // What a request has left to compute.
  struct Work {
    uint32_t prompt_tokens = 0;
    uint32_t tokens = 0;  // to generate, at most
  };
  // Seconds until each of `queued`, in the order of their turns, gets a slot; then those of one
  // that came behind them. All 0 where no pass has been measured.
  void Waits(std::span<const Work> active, std::span<const Work> queued,
             std::vector<double>* seconds);

 private:
  [[nodiscard]] double Seconds(const Work& work) const;

  const uint32_t max_active_;
  const uint32_t prompt_chunk_;
  double token_pass_ = 0;        // seconds, the later ones weighing more; 0: none yet
  double prompt_row_ = 0;        // what a pass takes longer for each row of a prompt
  std::vector<double> free_at_;  // a heap: when each slot is free
};

}  // namespace thimble
