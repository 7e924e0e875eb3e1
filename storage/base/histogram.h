// Seconds, counted by size: what the scheduler and the runner keep for the metrics. Called by: the
// scheduler and the runner (Observe), whoever tells the status. Memory: 152 and 96 bytes, nothing
// allocated.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace thimble {

// `Bounds::kBounds`: upper bounds, inclusive, rising.
template <typename Bounds>
struct BasicHistogram {
  static constexpr auto& kBounds = Bounds::kBounds;

  void Observe(double seconds) {
    const auto at = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
    ++counts[static_cast<size_t>(at - kBounds.begin())];
    sum += seconds;
  }

  // Not cumulative; the last one has what is above all bounds.
  std::array<uint64_t, Bounds::kBounds.size() + 1> counts{};
  double sum = 0;
};

// What a client waits for: from a token of the built-in model on a fast machine to ten minutes in
// the queue of a Pi Zero.
struct WaitBounds {
  static constexpr std::array<double, 17> kBounds = {
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600};
};
using Histogram = BasicHistogram<WaitBounds>;

// A stage: from a norm of the built-in model to the logits of a large one on a Pi Zero.
struct StageBounds {
  static constexpr std::array<double, 10> kBounds = {0.00001, 0.0001, 0.0005, 0.002, 0.01,
                                                     0.05,    0.25,   1,      5,     30};
};
using StageHistogram = BasicHistogram<StageBounds>;

}  // namespace thimble
