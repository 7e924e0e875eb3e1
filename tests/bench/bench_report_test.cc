#include "client/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <sstream>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

BenchReport Example() {
  BenchReport report;
  report.model_name = "a <model> & \"co\", two";
  report.weight_bytes = 90 * kMiB;
  report.compute_seconds = 0.004;
  report.flash_bytes_per_second = 2e9;
  for (const uint64_t ceiling : {64 * kMiB, 16 * kMiB, kNoCeiling}) {
    BenchRow& row = report.rows.emplace_back();
    row.ceiling_bytes = ceiling;
    row.peak_bytes = 1 << 20;
    for (const double speed : {50.0, 54.0, 55.0}) {
      row.samples.push_back({.prompt_tokens_per_second = 500,
                             .generation_tokens_per_second = speed,
                             .read_bytes_per_token = 3e7,
                             .written_bytes_per_token = 4e4,
                             .stall_seconds_per_token = 0.012,
                             .compute_seconds_per_token = 0.004,
                             .flash_bytes_per_second = 2e9,
                             .bound_tokens_per_second = 60});
    }
  }
  BenchRow& killed = report.rows.emplace_back();
  killed.engine = "llama.cpp";
  killed.variant = "default";
  killed.ceiling_bytes = 16 * kMiB;
  killed.oom_kills = 1;
  killed.failure = "ended by \"signal 9\"\nat once";
  return report;
}

TEST(BenchJson, HasTheNamesThatScriptsRelyOn) {
  const boost::json::object json = boost::json::parse(BenchJson(Example().rows[0])).as_object();
  std::vector<std::string> names;
  for (const auto& entry : json) names.emplace_back(entry.key());
  EXPECT_THAT(names,
              testing::ElementsAre("ceiling_bytes", "prompt_tokens_per_second",
                                   "generation_tokens_per_second", "bound_tokens_per_second",
                                   "fraction_of_bound", "flash_bytes_per_second",
                                   "flash_bytes_read_per_token", "flash_bytes_written_per_token",
                                   "stall_seconds_per_token", "compute_seconds_per_token",
                                   "peak_bytes", "oom_kills"));
  EXPECT_EQ(json.at("ceiling_bytes").as_int64(), 64 << 20);
  EXPECT_DOUBLE_EQ(json.at("generation_tokens_per_second").to_number<double>(), 54);
  EXPECT_DOUBLE_EQ(json.at("fraction_of_bound").to_number<double>(), 0.9);
}

TEST(BenchJson, OfNoCeilingHasZeroAndOfAKilledRunOnlyFiniteNumbers) {
  const BenchReport report = Example();
  EXPECT_EQ(boost::json::parse(BenchJson(report.rows[2])).at("ceiling_bytes").as_int64(), 0);
  const boost::json::object json = boost::json::parse(BenchJson(report.rows[3])).as_object();
  for (const auto& entry : json) {
    ASSERT_TRUE(entry.value().is_number()) << entry.key();
    EXPECT_TRUE(std::isfinite(entry.value().to_number<double>())) << entry.key();
  }
}

TEST(BenchTable, HasALineForEachRowAllOfOneWidth) {
  std::istringstream stream(BenchTable(Example()));
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 2U + 4U);
  for (const std::string& line : lines) {
    EXPECT_EQ(line.size(), lines[0].size());
    EXPECT_EQ(std::count(line.begin(), line.end(), '|'), 14) << line;
  }
  EXPECT_THAT(lines[2], testing::HasSubstr("54.0 (50.0-55.0)"));
  EXPECT_THAT(lines[4], testing::HasSubstr("| none "));
  EXPECT_THAT(lines[5], testing::HasSubstr("killed (out of memory)"));
}

TEST(BenchCsv, HasAsManyCellsInEveryLineWhateverTheTexts) {
  std::istringstream stream(BenchCsv(Example()));
  int lines = 0;
  for (std::string line; std::getline(stream, line); ++lines) {
    bool quoted = false;
    int commas = 0;
    for (const char c : line) {
      if (c == '"') quoted = !quoted;
      if (c == ',' && !quoted) ++commas;
    }
    EXPECT_FALSE(quoted) << line;
    EXPECT_EQ(commas, 24) << line;
  }
  EXPECT_EQ(lines, 5);
}

TEST(BenchSvg, EscapesTextAndHasNoNumberThatIsNone) {
  const std::string svg = BenchSvg(Example());
  EXPECT_THAT(svg, testing::StartsWith("<svg "));
  EXPECT_THAT(svg, testing::HasSubstr("a &lt;model&gt; &amp; "));
  EXPECT_THAT(svg, testing::Not(testing::HasSubstr("nan")));
  EXPECT_THAT(svg, testing::Not(testing::HasSubstr("\"inf")));
  EXPECT_THAT(svg, testing::HasSubstr("stroke-dasharray=\"6 4\" points=\""));
}

TEST(BenchSvg, OfNothingMeasuredIsStillAPicture) {
  const std::string svg = BenchSvg(BenchReport());
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  EXPECT_THAT(svg, testing::Not(testing::HasSubstr("nan")));
}

}  // namespace
}  // namespace thimble
