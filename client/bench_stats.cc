#include "client/bench_stats.h"

#include <algorithm>
#include <utility>

namespace thimble {

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {.median = median, .low = values.front(), .high = values.back()};
}

Spread BenchRow::Of(double BenchSample::*figure) const {
  std::vector<double> values;
  values.reserve(samples.size());
  for (const BenchSample& sample : samples) values.push_back(sample.*figure);
  return SpreadOf(std::move(values));
}

double BenchRow::fraction_of_bound() const {
  std::vector<double> fractions;
  for (const BenchSample& sample : samples) {
    if (sample.bound_tokens_per_second <= 0) return 0;
    fractions.push_back(sample.generation_tokens_per_second / sample.bound_tokens_per_second);
  }
  return SpreadOf(std::move(fractions)).median;
}

double BoundTokensPerSecond(uint64_t weight_bytes, uint64_t ceiling_bytes,
                            double flash_bytes_per_second, double compute_seconds,
                            double tokens_per_pass) {
  const uint64_t read = weight_bytes > ceiling_bytes ? weight_bytes - ceiling_bytes : 0;
  double seconds = compute_seconds;
  if (read > 0) {
    if (flash_bytes_per_second <= 0 || tokens_per_pass <= 0) return 0;
    seconds += static_cast<double>(read) / flash_bytes_per_second / tokens_per_pass;
  }
  return seconds > 0 ? 1 / seconds : 0;
}

void SetBounds(BenchRow& row, uint64_t weight_bytes, double compute_seconds,
               double tokens_per_pass) {
  for (BenchSample& sample : row.samples) {
    sample.bound_tokens_per_second =
        row.ceiling_bytes == kNoCeiling
            ? sample.generation_tokens_per_second
            : BoundTokensPerSecond(weight_bytes, row.ceiling_bytes, sample.flash_bytes_per_second,
                                   compute_seconds, tokens_per_pass);
  }
}

}  // namespace thimble
