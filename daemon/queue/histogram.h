// Seconds, counted by size: what the scheduler keeps for the metrics. Called by: the scheduler
// (Observe), whoever tells the status. Memory: 152 bytes, nothing allocated.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace thimble {

struct Histogram {
  // Upper bounds, inclusive. From a token of the built-in model on a fast machine to ten minutes in
  // the queue of a Pi Zero.
  static constexpr std::array<double, 17> kBounds = {
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600};

  void Observe(double seconds) {
    const auto at = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
    ++counts[static_cast<size_t>(at - kBounds.begin())];
    sum += seconds;
  }

  // Not cumulative; the last one has what is above all bounds.
  std::array<uint64_t, kBounds.size() + 1> counts{};
  double sum = 0;
};

}  // namespace thimble
