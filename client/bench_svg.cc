// The plot of bench_report.h: speed against ceiling, both logarithmic. A mid grey for text and axes
// reads on light and on dark ground alike.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

#include "client/bench_report.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr double kWidth = 720;
constexpr double kHeight = 420;
constexpr double kLeft = 64;
constexpr double kRight = 24;
constexpr double kTop = 64;
constexpr double kBottom = 52;
constexpr const char* kGrey = "#808080";
constexpr std::array<const char*, 4> kColours = {"#1e88e5", "#e07b00", "#2e9e5b", "#b455c9"};

template <typename... Arguments>
std::string Format(const char* format, Arguments... arguments) {
  std::array<char, 512> text{};
  (void)std::snprintf(text.data(), text.size(), format, arguments...);
  return text.data();
}

std::string Escape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '&')
      escaped += "&amp;";
    else if (c == '<')
      escaped += "&lt;";
    else if (c == '>')
      escaped += "&gt;";
    else
      escaped += c;
  }
  return escaped;
}

struct Scale {
  double low = 1;
  double high = 10;
  double from = 0;  // in the picture
  double to = 1;
  [[nodiscard]] double At(double value) const {
    const double part = (std::log(value) - std::log(low)) / (std::log(high) - std::log(low));
    return from + part * (to - from);
  }
};

struct Axes {
  Scale x;  // bytes
  Scale y;  // tokens a second
};

std::string Text(double x, double y, const char* anchor, const std::string& text) {
  return Format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor) + Escape(text) +
         "</text>\n";
}

std::string Line(double x1, double y1, double x2, double y2, const char* colour, double opacity) {
  return Format(
      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
      "stroke-opacity=\"%.2f\"/>\n",
      x1, y1, x2, y2, colour, opacity);
}

// Curves of one engine; at a ceiling that killed it there is a cross on the axis instead of a
// point.
std::map<std::string, std::vector<const BenchRow*>> ByEngine(const BenchReport& report) {
  std::map<std::string, std::vector<const BenchRow*>> engines;
  for (const BenchRow& row : report.rows) {
    if (row.ceiling_bytes != kNoCeiling) engines[row.engine].push_back(&row);
  }
  for (auto& [engine, rows] : engines) {
    std::sort(rows.begin(), rows.end(), [](const BenchRow* a, const BenchRow* b) {
      return a->ceiling_bytes < b->ceiling_bytes;
    });
  }
  return engines;
}

Axes MakeAxes(const BenchReport& report) {
  double x_low = INFINITY;
  double x_high = 0;
  double y_low = INFINITY;
  double y_high = 0;
  for (const BenchRow& row : report.rows) {
    if (row.ceiling_bytes != kNoCeiling) {
      x_low = std::min(x_low, static_cast<double>(row.ceiling_bytes));
      x_high = std::max(x_high, static_cast<double>(row.ceiling_bytes));
    }
    const Spread speed = row.generation();
    for (const double y : {speed.low, speed.high, row.bound()}) {
      if (y <= 0) continue;
      y_low = std::min(y_low, y);
      y_high = std::max(y_high, y);
    }
  }
  if (x_high <= 0) x_low = x_high = 16 * kMiB;
  if (y_high <= 0) y_low = y_high = 1;
  // The whole model in RAM belongs in the picture of a model that is not much larger.
  const auto whole = static_cast<double>(report.weight_bytes);
  if (whole > x_high && whole < 3 * x_high) x_high = whole;
  Axes axes;
  axes.x = {x_low / 1.15, x_high * 1.15, kLeft, kWidth - kRight};
  axes.y = {y_low / 1.4, y_high * 1.4, kHeight - kBottom, kTop};
  return axes;
}

std::string DrawAxes(const BenchReport& report, const Axes& axes) {
  std::string svg;
  const double floor = kHeight - kBottom;
  std::set<uint64_t> ceilings;
  for (const BenchRow& row : report.rows) {
    if (row.ceiling_bytes != kNoCeiling) ceilings.insert(row.ceiling_bytes);
  }
  double last_label = -100;
  for (const uint64_t ceiling : ceilings) {
    const double x = axes.x.At(static_cast<double>(ceiling));
    svg += Line(x, kTop, x, floor, kGrey, 0.25);
    if (x - last_label < 34) continue;
    last_label = x;
    svg += Text(x, floor + 18, "middle", Format("%.4g", static_cast<double>(ceiling) / kMiB));
  }
  for (int power = -4; power < 7; ++power) {
    for (const int digit : {1, 2, 5}) {
      const double value = digit * std::pow(10.0, power);
      if (value < axes.y.low || value > axes.y.high) continue;
      const double y = axes.y.At(value);
      svg += Line(kLeft, y, kWidth - kRight, y, kGrey, 0.25);
      svg += Text(kLeft - 8, y + 4, "end", Format("%g", value));
    }
  }
  svg += Text(kLeft + (kWidth - kRight - kLeft) / 2, kHeight - 12, "middle", "ceiling, MiB");
  svg += Format(
      "<text x=\"16\" y=\"%.1f\" text-anchor=\"middle\" transform=\"rotate(-90 16 %.1f)\">"
      "tokens a second</text>\n",
      (kTop + floor) / 2, (kTop + floor) / 2);
  return svg;
}

std::string DrawBound(const BenchReport& report, const Axes& axes) {
  std::string points;
  constexpr int kSteps = 200;
  for (int i = 0; i <= kSteps; ++i) {
    const double ceiling = axes.x.low * std::pow(axes.x.high / axes.x.low, double{1} * i / kSteps);
    const double speed = BoundTokensPerSecond(report.weight_bytes, static_cast<uint64_t>(ceiling),
                                              report.flash_bytes_per_second, report.compute_seconds,
                                              report.requests);
    if (speed < axes.y.low || speed > axes.y.high) continue;
    points += Format("%.1f,%.1f ", axes.x.At(ceiling), axes.y.At(speed));
  }
  return "<polyline fill=\"none\" stroke=\"" + std::string(kGrey) +
         "\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\" points=\"" + points + "\"/>\n";
}

std::string DrawEngine(const std::vector<const BenchRow*>& rows, const Axes& axes,
                       const char* colour) {
  std::string svg;
  std::string points;
  for (const BenchRow* row : rows) {
    const Spread speed = row->generation();
    const double x = axes.x.At(static_cast<double>(row->ceiling_bytes));
    if (speed.median <= 0) {
      const std::string why = Escape(row->failure);
      svg += Format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"%s\">", x,
                    kHeight - kBottom - 6, colour) +
             "\u00d7<title>" + why + "</title></text>\n";
      continue;
    }
    const double y = axes.y.At(speed.median);
    points += Format("%.1f,%.1f ", x, y);
    svg += Line(x, axes.y.At(speed.low), x, axes.y.At(speed.high), colour, 1);
    svg += Format(
        "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>%s: %.3g</title></circle>\n", x,
        y, colour, FormatBytes(row->ceiling_bytes).c_str(), speed.median);
  }
  return "<polyline fill=\"none\" stroke=\"" + std::string(colour) +
         "\" stroke-width=\"2\" points=\"" + points + "\"/>\n" + svg;
}

}  // namespace

std::string BenchSvg(const BenchReport& report) {
  const Axes axes = MakeAxes(report);
  std::string svg = Format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\" fill=\"%s\">\n",
      kWidth, kHeight, kWidth, kHeight, kGrey);
  const std::string requests =
      report.requests == 1 ? "" : ", " + std::to_string(report.requests) + " requests at once";
  svg +=
      "<text x=\"" + Format("%.0f", kLeft) + "\" y=\"22\" font-size=\"15\">" +
      Escape(report.model_name + ", " + FormatBytes(report.weight_bytes) + " of weights, flash " +
             Format("%.0f MB/s", report.flash_bytes_per_second / 1e6) + requests) +
      "</text>\n";
  svg += DrawAxes(report, axes) + DrawBound(report, axes);
  double x = kLeft;
  const auto legend = [&](const std::string& name, const char* colour, const char* dashes) {
    svg += Format(
        "<line x1=\"%.1f\" y1=\"42\" x2=\"%.1f\" y2=\"42\" stroke=\"%s\" "
        "stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n",
        x, x + 24, colour, dashes);
    svg += Text(x + 30, 46, "start", name);
    x += 60 + 7 * static_cast<double>(name.size());
  };
  size_t next = 0;
  // "thimble" first, whatever the others are called.
  const std::map<std::string, std::vector<const BenchRow*>> engines = ByEngine(report);
  std::vector<std::string> names;
  for (const auto& [engine, rows] : engines) names.push_back(engine);
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return name == "thimble"; });
  for (const std::string& name : names) {
    const char* colour = kColours[next++ % kColours.size()];
    svg += DrawEngine(engines.at(name), axes, colour);
    legend(name, colour, "none");
  }
  legend("bound", kGrey, "6 4");
  return svg + "</svg>\n";
}

}  // namespace thimble
