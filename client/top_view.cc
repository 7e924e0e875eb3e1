#include "client/top_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "client/progress.h"
#include "client/terminal.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

std::string Number(double value, int digits) {
  char text[32];
  (void)std::snprintf(static_cast<char*>(text), sizeof text, "%.*f", digits, value);
  return static_cast<char*>(text);
}

std::string BytesASecond(double bytes) {
  return FormatBytes(static_cast<uint64_t>(std::max(0.0, bytes))) + "/s";
}

struct Part {
  const char* name;
  const char* color;  // an escape sequence
  const char* ascii;
  uint64_t bytes;
};

std::array<Part, 4> PartsOf(const Owners& owners) {
  return {{{"weights", "\x1b[34m", "#", owners.weights},
           {"buffers", "\x1b[36m", "=", owners.buffers},
           {"program", "\x1b[33m", "%", owners.program},
           {"page cache", "\x1b[32m", "+", owners.cache}}};
}

// `fill` of one part for each column of a gauge of `width`, then dots up to the ceiling.
std::string Gauge(const std::array<Part, 4>& parts, uint64_t whole, int width,
                  const ViewStyle& style) {
  std::string bar = "[";
  int drawn = 0;
  double sum = 0;
  for (const Part& part : parts) {
    sum += static_cast<double>(part.bytes);
    const int end =
        std::min(width, static_cast<int>(std::lround(sum / static_cast<double>(whole) * width)));
    if (end <= drawn) continue;
    if (style.color) bar += part.color;
    for (; drawn < end; ++drawn) bar += style.utf8 && style.color ? "█" : part.ascii;
    if (style.color) bar += "\x1b[39m";
  }
  for (; drawn < width; ++drawn) bar += style.utf8 ? "·" : ".";
  return bar + "]";
}

std::string Legend(const std::array<Part, 4>& parts, const ViewStyle& style) {
  std::string text;
  for (const Part& part : parts) {
    if (!text.empty()) text += "  ";
    const std::string mark = style.utf8 && style.color ? "█" : part.ascii;
    text += (style.color ? part.color + mark + "\x1b[39m" : mark) + " " + part.name + " " +
            FormatBytes(part.bytes);
  }
  return text;
}

std::string Bold(const std::string& text, const ViewStyle& style) {
  return style.color ? "\x1b[1m" + text + "\x1b[22m" : text;
}

}  // namespace

Rates RatesBetween(const v1::GetStatusResponse& before, const v1::GetStatusResponse& now) {
  const double seconds = now.uptime_seconds() - before.uptime_seconds();
  if (seconds <= 0) return {};
  const auto rate = [seconds](auto from, auto to) {
    return to > from ? static_cast<double>(to - from) / seconds : 0.0;
  };
  Rates rates;
  rates.generated_tokens = rate(before.generated_tokens_total(), now.generated_tokens_total());
  rates.prompt_tokens = rate(before.prompt_tokens_total(), now.prompt_tokens_total());
  rates.flash_bytes = rate(before.flash_bytes_read(), now.flash_bytes_read());
  rates.passes = rate(before.passes_total(), now.passes_total());
  rates.stalled = std::min(1.0, rate(before.flash_stall_seconds(), now.flash_stall_seconds()));
  return rates;
}

Owners OwnersOf(const v1::GetStatusResponse& status) {
  Owners owners;
  owners.weights = status.resident_bytes();
  owners.buffers = status.plan_peak_bytes() - std::min(status.plan_peak_bytes(), owners.weights);
  owners.cache = status.memory_page_cache_bytes();
  const uint64_t known = owners.weights + owners.buffers + owners.cache;
  owners.program = status.memory_current_bytes() - std::min(status.memory_current_bytes(), known);
  return owners;
}

std::vector<std::string> TopLines(const v1::GetStatusResponse& now, const Rates& rates,
                                  const ViewStyle& style) {
  const auto fit = [&style](const std::string& text) { return Clip(text, style.columns); };
  std::vector<std::string> lines;
  lines.push_back(Bold(fit("thimbled " + now.version() + "  " + now.model_name() + " (" +
                           now.architecture() + ", " + FormatBytes(now.model_bytes()) + ")"),
                       style));
  lines.push_back(fit("up " + ShortTime(now.uptime_seconds()) + ", " +
                      (now.ready() ? "ready" : "not ready: " + now.not_ready_reason())));
  lines.emplace_back();

  const bool bounded = now.ceiling_bytes() > 0;
  const std::string limit =
      bounded ? FormatBytes(now.ceiling_bytes()) + " (" + now.enforcement() + ")" : "no ceiling";
  lines.push_back(fit("memory   " + FormatBytes(now.memory_current_bytes()) + " of " + limit +
                      ", peak " + FormatBytes(now.memory_peak_bytes()) + ", limit hits " +
                      std::to_string(now.memory_failures()) + ", OOM kills " +
                      std::to_string(now.oom_kills())));
  const std::array<Part, 4> parts = PartsOf(OwnersOf(now));
  uint64_t whole = now.ceiling_bytes();
  if (!bounded) {
    for (const Part& part : parts) whole += part.bytes;
  }
  if (style.columns > 16) {
    lines.push_back(Gauge(parts, std::max<uint64_t>(whole, 1), style.columns - 2, style));
  }
  // Too narrow for all of it: without colours, so that it may be cut anywhere.
  const std::string plain = Legend(parts, {style.columns, style.utf8, false});
  lines.push_back(Clip(plain, style.columns) == plain ? Legend(parts, style) : fit(plain));
  lines.emplace_back();

  lines.push_back(fit("requests " + std::to_string(now.active_requests()) + " active, " +
                      std::to_string(now.queued_requests()) + " queued" +
                      (now.estimated_wait_seconds() > 0
                           ? " (about " + ShortTime(now.estimated_wait_seconds()) + ")"
                           : "") +
                      ", " + std::to_string(now.requests_total()) + " in all"));
  lines.push_back(fit("tokens   " + Number(rates.generated_tokens, 1) + "/s generated, " +
                      Number(rates.prompt_tokens, 1) + "/s of prompts, " +
                      std::to_string(now.generated_tokens_total()) + " generated in all"));
  lines.push_back(fit("flash    " + BytesASecond(rates.flash_bytes) + " by " + now.reader() +
                      ", waited for " + Number(100 * rates.stalled, 0) + " % of the time"));
  lines.push_back(fit("stage    " + (now.active_requests() > 0 ? now.stage() : "idle") + ", " +
                      Number(rates.passes, 1) + " passes/s, granularity " + now.granularity()));
  return lines;
}

std::string PlainLine(const v1::GetStatusResponse& now, const Rates& rates) {
  return std::string(now.ready() ? "ready" : "not ready") + "  memory " +
         FormatBytes(now.memory_current_bytes()) + " of " +
         (now.ceiling_bytes() > 0 ? FormatBytes(now.ceiling_bytes()) : "no ceiling") + "  active " +
         std::to_string(now.active_requests()) + "  queued " +
         std::to_string(now.queued_requests()) + "  tokens/s " + Number(rates.generated_tokens, 1) +
         "  prompt tokens/s " + Number(rates.prompt_tokens, 1) + "  flash " +
         BytesASecond(rates.flash_bytes) + "  stage " +
         (now.active_requests() > 0 ? now.stage() : "idle");
}

}  // namespace thimble
