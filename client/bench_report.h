// What `thimble bench` says of its rows: JSON, a table (Markdown, which reads as plain text too),
// CSV with everything, an SVG plot. Called by: bench.cc. Memory: the text.
#pragma once

#include <string>
#include <vector>

#include "client/bench_stats.h"

namespace thimble {

// What all rows of one report have in common.
struct BenchReport {
  std::string model_name;
  uint64_t weight_bytes = 0;  // touched in a pass
  uint32_t requests = 1;
  uint32_t prompt_tokens = 0;
  uint32_t tokens = 0;
  double compute_seconds = 0;         // of a token with everything in RAM: the bound's last term
  double flash_bytes_per_second = 0;  // the plot's bound is drawn for this rate
  std::vector<BenchRow> rows;
};

// One line. The names are promised to scripts: never change them.
std::string BenchJson(const BenchRow& row);
std::string BenchTable(const BenchReport& report);
std::string BenchCsv(const BenchReport& report);
// Speed against ceiling, both axes logarithmic, the bound dashed; colours that read on light and on
// dark ground.
std::string BenchSvg(const BenchReport& report);

}  // namespace thimble
