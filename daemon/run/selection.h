// The arithmetic that narrow and wide sampling share, in double precision: what a logit weighs, and
// which logits min-p keeps. Called by: sampler_narrow.cc, sampler_wide.cc.
#pragma once

#include <cmath>
#include <cstdint>

namespace thimble {

// A token that may be drawn. `logit` is after the penalties.
struct Candidate {
  float logit = 0;
  int32_t id = 0;
};

// The ranking that top-k and top-p cut: larger logits first, equal ones by rising id.
inline bool RanksBefore(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// exp((logit - max) / temperature), 1 for the largest even where it is infinite.
inline double Weight(float logit, float max, double temperature) {
  if (logit == max) return 1.0;
  return std::exp((static_cast<double>(logit) - static_cast<double>(max)) / temperature);
}

// p(logit) >= min_p * p(max), compared as logarithms.
inline bool MinPKeeps(float logit, float max, double log_min_p) {
  return logit == max || static_cast<double>(logit) - static_cast<double>(max) >= log_min_p;
}

}  // namespace thimble
