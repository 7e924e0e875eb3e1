#include "daemon/run/likeliest.h"

#include <algorithm>

#include "daemon/run/kernels.h"

namespace thimble {

void LikeliestTokens::Offer(uint32_t first_token, std::span<const float> logits) {
  constexpr size_t kAtOnce = 128;  // looked at together, for one that is larger
  for (size_t begin = 0; begin < logits.size(); begin += kAtOnce) {
    const size_t end = std::min(logits.size(), begin + kAtOnce);
    if (n_ == kMost && Largest(&logits[begin], end - begin) <= logits_[kMost - 1]) continue;
    for (size_t i = begin; i < end; ++i) {
      const float logit = logits[i];
      size_t at = n_;
      while (at > 0 && logit > logits_[at - 1]) --at;
      if (at == kMost || logit != logit) continue;
      n_ = std::min(n_ + 1, kMost);
      std::copy_backward(ids_.begin() + at, ids_.begin() + n_ - 1, ids_.begin() + n_);
      std::copy_backward(logits_.begin() + at, logits_.begin() + n_ - 1, logits_.begin() + n_);
      ids_[at] = static_cast<int32_t>(first_token + i);
      logits_[at] = logit;
    }
  }
}

}  // namespace thimble
