#include "daemon/run/sampler_narrow.h"

#include <cmath>
#include <cstddef>

namespace thimble {

std::optional<Candidate> NarrowSelection::Draw(const SamplingOptions& options, double uniform) {
  if (best_.empty()) return std::nullopt;
  std::sort_heap(best_.begin(), best_.end(), RanksBefore);
  const float max = best_.front().logit;
  if (options.temperature == 0) return best_.front();

  size_t kept = best_.size();
  if (options.top_p < 1) {
    double total = 0;
    for (const Candidate& c : best_) total += Weight(c.logit, max, 1.0);
    const double target = static_cast<double>(options.top_p) * total;
    double mass = 0;
    for (size_t i = 0; i < best_.size(); ++i) {
      mass += Weight(best_[i].logit, max, 1.0);
      if (mass >= target) {
        kept = i + 1;
        break;
      }
    }
  }
  if (options.min_p > 0) {
    const double log_min_p = std::log(static_cast<double>(options.min_p));
    while (kept > 1 && !MinPKeeps(best_[kept - 1].logit, max, log_min_p)) --kept;
  }

  // In the order of ids, as wide sampling draws: the same tokens from the same seed.
  best_.resize(kept);
  std::sort(best_.begin(), best_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  double total = 0;
  for (const Candidate& c : best_) total += Weight(c.logit, max, options.temperature);
  const double target = uniform * total;
  double mass = 0;
  std::optional<Candidate> drawn;
  for (const Candidate& c : best_) {
    const double weight = Weight(c.logit, max, options.temperature);
    if (weight == 0) continue;
    drawn = c;  // stays the last one where rounding leaves `mass` at `target`
    mass += weight;
    if (mass > target) break;
  }
  return drawn;
}

}  // namespace thimble
