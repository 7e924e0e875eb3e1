// The metrics, in Prometheus' text format 0.0.4: what GET /metrics answers. Names are
// thimble_NOUN_UNIT, units are seconds and bytes, counters end in _total. Called by: the HTTP
// server's routes. Memory: the text, about 12 KiB, while it is told.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/queue/histogram.h"
#include "daemon/status.h"

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
  MetricsText& Sample(const Histogram& histogram);

  [[nodiscard]] std::string Take() && { return std::move(text_); }

 private:
  void Line(std::string_view suffix, Labels labels, std::string_view value);

  std::string text_;
  std::string name_;
};

// All of them. `compatible`: llama-server's names for what both have, too ("llamacpp:..."; the
// colon is what promtool's style check complains about).
std::string MetricsPage(const DaemonStatus& status, bool compatible);

}  // namespace thimble
