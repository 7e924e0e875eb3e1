// The logarithm of the sum of exponentials of a row of logits that streams by in tiles: what the
// probabilities of its tokens are divided by. Sums are made of groups of kGroup logits, counted
// from the row's first, so that the result does not depend on where the tiles were cut.
// Called by: Sampler. Memory: 600 bytes, of which 512 are the group that is not full yet.
#pragma once

#include <array>
#include <cstddef>
#include <limits>
#include <span>

namespace thimble {

class LogSumExp {
 public:
  static constexpr size_t kGroup = 128;

  void Clear();
  // The logits that come next; NaN counts for nothing.
  void Add(std::span<const float> logits);

  // log(sum(exp(logit - max()))) of all that were added; max() is the largest of these, or
  // -infinity where there is none. Equal infinite ones weigh 1 each, and nothing beside them does.
  // More may be added afterwards only after Clear.
  double Finish();
  [[nodiscard]] float max() const { return max_; }

 private:
  void AddGroup(const float* logits, size_t n);

  std::array<float, kGroup> group_{};
  size_t n_group_ = 0;
  float max_ = -std::numeric_limits<float>::infinity();
  double sum_ = 0;  // of exp(logit - max_)
};

}  // namespace thimble
