// The figures of `thimble bench`: what is measured of one engine under one ceiling, and the bound
// that it is held against. Called by: bench*.cc. Memory: some numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace thimble {

// Of several runs. The median of an even number is the mean of the two in the middle.
struct Spread {
  double median = 0;
  double low = 0;
  double high = 0;
};
Spread SpreadOf(std::vector<double> values);  // all zero where there are none

// One run, of one or more requests at once; "a token" is a generated one, of any request.
struct BenchSample {
  double prompt_tokens_per_second = 0;
  double generation_tokens_per_second = 0;
  double read_bytes_per_token = 0;
  double written_bytes_per_token = 0;
  double stall_seconds_per_token = 0;
  double compute_seconds_per_token = 0;  // everything but waiting for flash
  double flash_bytes_per_second = 0;     // just before and after, the mean; 0: not measured
  double bound_tokens_per_second = 0;    // with that flash; 0: there is none
};

inline constexpr uint64_t kNoCeiling = UINT64_MAX;

// Everything about one engine under one ceiling.
struct BenchRow {
  std::string engine = "thimble";
  std::string variant;  // of a peer: how it was started
  uint64_t ceiling_bytes = kNoCeiling;
  std::vector<BenchSample> samples;
  double start_seconds = 0;  // from exec to ready, cold
  std::string flash_method;  // the fastest way of reading, in which flash is measured
  uint64_t peak_bytes = 0;
  uint64_t oom_kills = 0;
  std::string failure;  // why there are fewer samples than asked for; empty: there are all

  [[nodiscard]] Spread Of(double BenchSample::*figure) const;
  [[nodiscard]] Spread generation() const { return Of(&BenchSample::generation_tokens_per_second); }
  [[nodiscard]] Spread prompt() const { return Of(&BenchSample::prompt_tokens_per_second); }
  // Medians of the runs; 0 where there is no bound, or flash was not measured.
  [[nodiscard]] double bound() const { return Of(&BenchSample::bound_tokens_per_second).median; }
  [[nodiscard]] double flash() const { return Of(&BenchSample::flash_bytes_per_second).median; }
  [[nodiscard]] double fraction_of_bound() const;
};

// The most tokens a second there can be where `weight_bytes` are touched in a pass, all but
// `ceiling_bytes` of them must come from flash each time, and a pass makes `tokens_per_pass`:
//   1 / (max(0, W - C) / flash / tokens_per_pass + compute)
// with `compute_seconds` the measured time of a token with all weights in RAM.
double BoundTokensPerSecond(uint64_t weight_bytes, uint64_t ceiling_bytes,
                            double flash_bytes_per_second, double compute_seconds,
                            double tokens_per_pass);
// The same for each run of the row, with flash as it was then. Without a ceiling the bound is what
// was reached.
void SetBounds(BenchRow& row, uint64_t weight_bytes, double compute_seconds,
               double tokens_per_pass);

}  // namespace thimble
