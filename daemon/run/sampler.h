// From logits to the next token: greedy, temperature, top-k, top-p (arXiv:1904.09751), min-p
// (arXiv:2407.01082), repetition (arXiv:1909.05858), presence and frequency penalties, a seed.
//
// Order, as llama.cpp's: penalties, top-k, top-p, min-p, temperature, one draw. Logits arrive in
// tiles of the vocabulary while the output matrix is streamed, so a running top-k is all that is
// kept (narrow sampling: temperature 0, or 1 <= top_k <= kMaxNarrow). Without a top-k (top_k 0 or
// larger) the logits go to the stage store and are read back as often as needed (wide sampling);
// both are exact.
// The draw for the i-th token is a function of (seed, i) alone: a restart in the middle changes
// nothing. Nothing depends on how the row was cut into tiles, bit for bit. A logit that is NaN is
// never drawn; infinite ones are taken as the limit of large ones. Called by: the scheduler, one
// Sampler per active request. Memory, fixed at construction: 8 bytes a token of top_k (narrow)
// or 10.2 KiB (wide), and with penalties 8 bytes a token of repeat_last_n: 1.6 KiB with the
// defaults, 16.6 KiB at most for narrow, 19.1 KiB for wide.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "daemon/run/likeliest.h"
#include "daemon/run/log_sum_exp.h"
#include "daemon/run/logits_sink.h"
#include "daemon/run/sampler_narrow.h"
#include "daemon/run/sampler_wide.h"
#include "daemon/run/sampling_options.h"
#include "storage/base/status.h"
#include "storage/stage_store.h"

namespace thimble {

class Sampler final : public LogitsSink {
 public:
  static constexpr uint32_t kMaxNarrow = 1024;

  // `options` are valid. `store` may be null where they are narrow; `slot` (unique among active
  // requests, below 65536) names this sampler's parts of the store.
  Sampler(const SamplingOptions& options, uint32_t vocab_size, uint32_t slot, StageStore* store);

  // Whether a running top-k will do; and about what a narrow sampler holds.
  static bool Narrow(const SamplingOptions& options);
  static size_t RowBytes(const SamplingOptions& options, uint32_t vocab_size);

  // Before the pass that computes the logits of token `index` (0-based, of the generated ones).
  // `history`: prompt and generated tokens so far, `drafts`: tokens taken to follow them; the last
  // repeat_last_n of both count. `banned`: ids that must not be drawn (ignore_eos); it must stay
  // valid until Finish.
  void Begin(uint32_t index, std::span<const int32_t> history, std::span<const int32_t> banned,
             std::span<const int32_t> drafts = {});

  // One tile of logits of the row (tiles come in order, each id once).
  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override;

  struct Choice {
    int32_t token = 0;
    float log_probability = 0;  // of the model's own distribution: penalties and truncation aside
  };
  // After the last tile. INTERNAL where tiles are missing, RESOURCE_EXHAUSTED from the store;
  // DATA_LOSS where every logit is NaN.
  Result<Choice> Finish();
  // What the model itself thinks likeliest, penalties aside; of narrow sampling, once logits have
  // come.
  [[nodiscard]] std::span<const int32_t> Likeliest() const { return likeliest_.ids(); }

 private:
  // A token of the history that penalties look back on.
  struct Seen {
    int32_t id;
    union {
      uint32_t count;  // until its logit comes by
      float raw;       // from then on: the logit before the penalties
    };
  };
  [[nodiscard]] float Penalize(float logit, uint32_t count) const;
  // `n` logits from next_id_ on, up to `largest`.
  [[nodiscard]] bool Ignores(size_t n, float largest) const;
  Status Offer(float raw);
  void FindNextBanned(int64_t after);

  const SamplingOptions options_;
  const uint32_t vocab_size_;
  const bool penalties_;
  std::optional<NarrowSelection> narrow_;  // exactly one of the two
  std::unique_ptr<WideSelection> wide_;    // large
  LikeliestTokens likeliest_;
  std::vector<Seen> seen_;  // by rising id; capacity reserved at construction

  uint32_t index_ = 0;
  std::span<const int32_t> banned_;
  uint32_t next_id_ = 0;
  int64_t next_banned_ = 0;  // the smallest banned id from next_id_ on
  size_t next_seen_ = 0;     // in seen_
  LogSumExp raw_;            // of the model's own logits
};

}  // namespace thimble
