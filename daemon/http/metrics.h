// The metrics, in Prometheus' text format 0.0.4: what GET /metrics answers. Names are
// thimble_NOUN_UNIT, units are seconds and bytes, counters end in _total. Called by: the HTTP
// server's routes. Memory: the text, about 18 KiB, while it is told.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/status.h"
#include "storage/base/histogram.h"

namespace thimble {

inline constexpr std::string_view kMetricsType = "text/plain; version=0.0.4; charset=utf-8";

// Writes metrics one after the other, the samples of each behind its HELP and TYPE.
class MetricsText {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  // `type`: counter, gauge or histogram.
  MetricsText& Metric(std::string_view name, std::string_view type, std::string_view help);
  // Of the metric named last. Values of labels may be any bytes.
  MetricsText& Sample(double value, Labels labels = {});
  MetricsText& Sample(uint64_t value, Labels labels = {});
  template <typename Bounds>
  MetricsText& Sample(const BasicHistogram<Bounds>& histogram, Labels labels = {}) {
    return Sample(histogram.kBounds, histogram.counts, histogram.sum, labels);
  }

  [[nodiscard]] std::string Take() && { return std::move(text_); }

 private:
  // `counts`: one more than `bounds`, not cumulative.
  MetricsText& Sample(std::span<const double> bounds, std::span<const uint64_t> counts, double sum,
                      Labels labels);
  // `bound`: of a histogram's bucket; empty: none.
  void Line(std::string_view suffix, Labels labels, std::string_view bound, std::string_view value);

  std::string text_;
  std::string name_;
};

// The names of other servers for what both have, told beside ours on request: dashboards made for
// them work. Their colons are what promtool's style check complains about.
struct CompatibleNames {
  bool llamacpp = false;
  bool vllm = false;
};

// All of them.
std::string MetricsPage(const DaemonStatus& status, CompatibleNames names = {});

}  // namespace thimble
