#include "client/bench_report.h"

#include <array>
#include <cmath>
#include <cstdio>

#include "client/json_line.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

std::string Fixed(double value, int digits) {
  std::array<char, 64> text{};
  (void)std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

// Three significant digits, as far as decimals go: "284", "63.4", "4.81", "0.0512".
std::string Short(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::fabs(value);
  if (size == 0) return "0";
  return Fixed(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4);
}

std::string WithSpread(const Spread& spread) {
  if (spread.low == spread.high) return Short(spread.median);
  return Short(spread.median) + " (" + Short(spread.low) + "-" + Short(spread.high) + ")";
}

std::string CeilingText(uint64_t ceiling_bytes) {
  return ceiling_bytes == kNoCeiling ? "none" : FormatBytes(ceiling_bytes);
}

std::string CsvQuote(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c == '\n' ? ' ' : c;
  }
  return quoted + "\"";
}

using Cells = std::vector<std::string>;

Cells TableRow(const BenchRow& row) {
  const std::string engine = row.variant.empty() ? row.engine : row.engine + ", " + row.variant;
  if (row.samples.empty()) {
    const std::string why = row.oom_kills > 0 ? "killed (out of memory)" : row.failure;
    return {CeilingText(row.ceiling_bytes),
            engine,
            why,
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            row.peak_bytes > 0 ? FormatBytes(row.peak_bytes) : "",
            std::to_string(row.oom_kills)};
  }
  const bool ours = row.bound() > 0;
  const auto per_token = [&](double BenchSample::*figure, double scale) {
    return ours ? Short(row.Of(figure).median * scale) : std::string();
  };
  return {CeilingText(row.ceiling_bytes),
          engine,
          WithSpread(row.prompt()),
          WithSpread(row.generation()),
          ours ? Short(row.bound()) : "",
          ours ? Fixed(row.fraction_of_bound(), 2) : "",
          ours ? Short(row.flash() / 1e6) : "",
          per_token(&BenchSample::read_bytes_per_token, 1e-6),
          per_token(&BenchSample::written_bytes_per_token, 1e-3),
          per_token(&BenchSample::stall_seconds_per_token, 1e3),
          per_token(&BenchSample::compute_seconds_per_token, 1e3),
          FormatBytes(row.peak_bytes),
          std::to_string(row.oom_kills)};
}

}  // namespace

std::string BenchJson(const BenchRow& row) {
  return JsonLine()
      .Add("ceiling_bytes", row.ceiling_bytes == kNoCeiling ? 0 : row.ceiling_bytes)
      .Add("prompt_tokens_per_second", row.prompt().median)
      .Add("generation_tokens_per_second", row.generation().median)
      .Add("bound_tokens_per_second", row.bound())
      .Add("fraction_of_bound", row.fraction_of_bound())
      .Add("flash_bytes_per_second", row.flash())
      .Add("flash_bytes_read_per_token", row.Of(&BenchSample::read_bytes_per_token).median)
      .Add("flash_bytes_written_per_token", row.Of(&BenchSample::written_bytes_per_token).median)
      .Add("stall_seconds_per_token", row.Of(&BenchSample::stall_seconds_per_token).median)
      .Add("compute_seconds_per_token", row.Of(&BenchSample::compute_seconds_per_token).median)
      .Add("peak_bytes", row.peak_bytes)
      .Add("oom_kills", row.oom_kills)
      .str();
}

std::string BenchTable(const BenchReport& report) {
  std::vector<Cells> lines = {{"ceiling", "engine", "prompt, tokens/s", "generation, tokens/s",
                               "bound", "of the bound", "flash, MB/s", "read, MB/token",
                               "written, KB/token", "stall, ms/token", "compute, ms/token", "peak",
                               "OOM kills"}};
  for (const BenchRow& row : report.rows) lines.push_back(TableRow(row));
  std::vector<size_t> widths(lines.front().size(), 3);
  for (const Cells& cells : lines) {
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
  }
  std::string text;
  for (size_t line = 0; line < lines.size(); ++line) {
    for (size_t i = 0; i < lines[line].size(); ++i) {
      const std::string& cell = lines[line][i];
      text += "| " + cell + std::string(widths[i] - cell.size() + 1, ' ');
    }
    text += "|\n";
    if (line > 0) continue;
    for (const size_t width : widths) text += "|" + std::string(width + 2, '-');
    text += "|\n";
  }
  return text;
}

std::string BenchCsv(const BenchReport& report) {
  std::string text =
      "model,engine,variant,requests,runs,ceiling_bytes,prompt_tokens_per_second,prompt_low,"
      "prompt_high,generation_tokens_per_second,generation_low,generation_high,"
      "bound_tokens_per_second,fraction_of_bound,flash_bytes_per_second,flash_method,"
      "flash_bytes_read_per_token,flash_bytes_written_per_token,stall_seconds_per_token,"
      "compute_seconds_per_token,peak_bytes,oom_kills,weight_bytes,start_seconds,failure\n";
  for (const BenchRow& row : report.rows) {
    const auto number = [](double value) { return JsonLine().Add("", value).str(); };
    const auto add = [&](const std::string& cell) { text += cell + ","; };
    // The shortest text that is the number: what JsonLine writes, without its braces.
    const auto add_number = [&](double value) {
      const std::string json = number(value);
      add(json.substr(4, json.size() - 5));
    };
    const auto add_spread = [&](const Spread& spread) {
      for (const double value : {spread.median, spread.low, spread.high}) add_number(value);
    };
    add(CsvQuote(report.model_name));
    add(CsvQuote(row.engine));
    add(CsvQuote(row.variant));
    add(std::to_string(report.requests));
    add(std::to_string(row.samples.size()));
    add(std::to_string(row.ceiling_bytes == kNoCeiling ? 0 : row.ceiling_bytes));
    add_spread(row.prompt());
    add_spread(row.generation());
    add_number(row.bound());
    add_number(row.fraction_of_bound());
    add_number(row.flash());
    add(CsvQuote(row.flash_method));
    add_number(row.Of(&BenchSample::read_bytes_per_token).median);
    add_number(row.Of(&BenchSample::written_bytes_per_token).median);
    add_number(row.Of(&BenchSample::stall_seconds_per_token).median);
    add_number(row.Of(&BenchSample::compute_seconds_per_token).median);
    add(std::to_string(row.peak_bytes));
    add(std::to_string(row.oom_kills));
    add(std::to_string(report.weight_bytes));
    add_number(row.start_seconds);
    text += CsvQuote(row.failure) + "\n";
  }
  return text;
}

}  // namespace thimble
