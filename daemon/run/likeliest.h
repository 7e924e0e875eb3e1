// The likeliest tokens of a row of logits, kept while the row streams by: what the model thinks may
// follow, whatever is drawn. Called by: Sampler. Memory: 56 bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thimble {

class LikeliestTokens {
 public:
  static constexpr size_t kMost = 6;

  void Clear() { n_ = 0; }
  // Ids from `first_token` on, which rise from call to call; `largest` of them, as Largest says it.
  // NaNs are passed over.
  void Offer(uint32_t first_token, std::span<const float> logits, float largest);
  // The largest logit's first; of equal ones the smaller id's.
  [[nodiscard]] std::span<const int32_t> ids() const { return std::span(ids_).first(n_); }

 private:
  size_t n_ = 0;
  std::array<int32_t, kMost> ids_{};
  std::array<float, kMost> logits_{};
};

}  // namespace thimble
