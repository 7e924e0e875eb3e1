#include "daemon/run/log_sum_exp.h"

#include <algorithm>
#include <cmath>

#include "daemon/run/kernels.h"

namespace thimble {

void LogSumExp::Clear() {
  n_group_ = 0;
  max_ = -std::numeric_limits<float>::infinity();
  sum_ = 0;
}

void LogSumExp::Add(std::span<const float> logits) {
  while (!logits.empty()) {
    if (n_group_ == 0 && logits.size() >= kGroup) {
      AddGroup(logits.data(), kGroup);
      logits = logits.subspan(kGroup);
      continue;
    }
    const size_t n = std::min(logits.size(), kGroup - n_group_);
    std::copy_n(logits.begin(), n, group_.begin() + static_cast<ptrdiff_t>(n_group_));
    logits = logits.subspan(n);
    n_group_ += n;
    if (n_group_ == kGroup) {
      AddGroup(group_.data(), kGroup);
      n_group_ = 0;
    }
  }
}

void LogSumExp::AddGroup(const float* logits, size_t n) {
  const float max = std::max(max_, Largest(logits, n));
  if (max > max_) {
    sum_ *= std::exp(static_cast<double>(max_) - static_cast<double>(max));
    max_ = max;
  }
  if (std::isfinite(max)) {
    sum_ += static_cast<double>(SumOfExp(logits, n, max));
  } else {
    sum_ += static_cast<double>(std::count(logits, logits + n, max));
  }
}

double LogSumExp::Finish() {
  if (n_group_ > 0) AddGroup(group_.data(), n_group_);
  n_group_ = 0;
  return std::log(sum_);
}

}  // namespace thimble
