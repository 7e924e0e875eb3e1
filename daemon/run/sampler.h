// From logits to the next token: greedy, temperature, top-k, top-p (arXiv:1904.09751), min-p
// (arXiv:2407.01082), repetition (arXiv:1909.05858), presence and frequency penalties, a seed.
//
// Order, as llama.cpp's: penalties, top-k, top-p, min-p, temperature, one draw. Logits arrive in
// tiles of the vocabulary while the output matrix is streamed, so a running top-k is all that is
// kept (narrow sampling: temperature 0, or 1 <= top_k <= kMaxNarrow). Without a top-k (top_k 0 or
// larger) the logits go to the stage store and are read back as often as needed (wide sampling);
// both are exact.
// The draw for the i-th token is a function of (seed, i) alone: a restart in the middle changes nothing.
// Called by: the scheduler, one Sampler per active request. Memory: fixed at construction, under 16 KiB.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "daemon/run/logits_sink.h"
#include "storage/base/status.h"
#include "storage/stage_store.h"

namespace thimble {

struct SamplingOptions {
  float temperature = 0.8F;        // 0: greedy; [0, 100]
  uint32_t top_k = 40;             // 0: off
  float top_p = 0.95F;             // (0, 1]; 1: off
  float min_p = 0.05F;             // [0, 1]; 0: off
  float repeat_penalty = 1.0F;     // (0, 10]; 1: off
  uint32_t repeat_last_n = 64;     // tokens looked back for the three penalties; 0: off; at most 1024
  float presence_penalty = 0.0F;   // [-2, 2]
  float frequency_penalty = 0.0F;  // [-2, 2]
  uint64_t seed = 0;
};

// INVALID_ARGUMENT naming the field, its value and its range.
Status ValidateSampling(const SamplingOptions& options);

class Sampler final : public LogitsSink {
 public:
  static constexpr uint32_t kMaxNarrow = 1024;

  // `store` may be null where `options` are narrow; `slot` (unique among active requests) names this
  // sampler's part of the store.
  Sampler(const SamplingOptions& options, uint32_t vocab_size, uint32_t slot, StageStore* store);

  // Before the pass that computes the logits of token `index` (0-based, of the generated ones).
  // `history`: prompt and generated tokens so far; the last repeat_last_n count. `banned`: ids that
  // must not be drawn (ignore_eos). Both must stay valid until Finish.
  void Begin(uint32_t index, std::span<const int32_t> history, std::span<const int32_t> banned);

  // One tile of logits of the row (tiles come in order, each id once).
  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override;

  struct Choice {
    int32_t token = 0;
    float log_probability = 0;  // of the model's own distribution: penalties and truncation aside
  };
  // After the last tile. INTERNAL where tiles are missing, RESOURCE_EXHAUSTED from the store;
  // DATA_LOSS where every logit is NaN.
  Result<Choice> Finish();

 private:
  const SamplingOptions options_;
  const uint32_t vocab_size_;
  const uint32_t slot_;
  StageStore* const store_;
};

}  // namespace thimble
