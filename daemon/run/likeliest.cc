#include "daemon/run/likeliest.h"

#include <algorithm>

namespace thimble {

void LikeliestTokens::Offer(uint32_t first_token, std::span<const float> logits, float largest) {
  if (n_ == kMost && largest <= logits_[kMost - 1]) return;
  for (size_t i = 0; i < logits.size(); ++i) {
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

}  // namespace thimble
