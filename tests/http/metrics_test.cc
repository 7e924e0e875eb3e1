#include "daemon/http/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace thimble {
namespace {

struct Sample {
  std::string name;
  std::string labels;
  std::string value;
};

// Text format 0.0.4, read strictly: adds a failure for anything that is not well-formed.
struct Page {
  std::map<std::string, std::string> types;
  std::set<std::string> helps;
  std::vector<Sample> samples;

  explicit Page(const std::string& text) {
    EXPECT_TRUE(text.ends_with('\n'));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const std::string_view rest = std::string_view(line).substr(std::min<size_t>(7, line.size()));
      const size_t name = NameLength(rest);
      if (line.starts_with("# HELP ")) {
        EXPECT_TRUE(name != 0 && rest.size() > name + 1 && rest[name] == ' ') << line;
        EXPECT_TRUE(helps.insert(std::string(rest.substr(0, name))).second) << "twice: " << line;
      } else if (line.starts_with("# TYPE ")) {
        EXPECT_TRUE(name != 0 && rest.size() > name + 1 && rest[name] == ' ') << line;
        EXPECT_TRUE(
            types.emplace(rest.substr(0, name), rest.substr(std::min(name + 1, rest.size())))
                .second)
            << line;
      } else {
        AddSample(line);
      }
    }
  }

  // Of "name" or "name:space" at the beginning.
  static size_t NameLength(std::string_view text) {
    size_t n = 0;
    while (n < text.size() &&
           (std::isalpha(static_cast<unsigned char>(text[n])) != 0 || text[n] == '_' ||
            text[n] == ':' || (n != 0 && std::isdigit(static_cast<unsigned char>(text[n])) != 0))) {
      ++n;
    }
    return n;
  }

  // The labels at the beginning of `text`, "{a="b",c="d"}", braces included; 0: malformed.
  static size_t LabelsLength(std::string_view text) {
    size_t at = 0;
    do {
      ++at;  // the brace or the comma
      const size_t name = NameLength(text.substr(at));
      at += name;
      if (name == 0 || text.substr(at, 2) != "=\"") return 0;
      for (at += 2; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] != '\\') continue;
        ++at;
        if (at >= text.size() ||
            std::string_view("\\\"n").find(text[at]) == std::string_view::npos) {
          return 0;
        }
      }
      ++at;  // the quote
    } while (at < text.size() && text[at] == ',');
    return at < text.size() && text[at] == '}' ? at + 1 : 0;
  }

  void AddSample(std::string_view line) {
    const size_t name = NameLength(line);
    std::string_view rest = line.substr(name);
    const size_t labels = rest.starts_with('{') ? LabelsLength(rest) : 0;
    ASSERT_TRUE(name != 0 && (labels != 0 || !rest.starts_with('{'))) << "malformed: " << line;
    const std::string_view value = rest.substr(labels);
    ASSERT_TRUE(value.size() > 1 && value[0] == ' ' &&
                value.find_first_not_of("0123456789.e+-", 1) == std::string_view::npos)
        << "malformed: " << line;
    samples.push_back({std::string(line.substr(0, name)), std::string(rest.substr(0, labels)),
                       std::string(value.substr(1))});
  }

  // The metric that a sample belongs to.
  [[nodiscard]] std::string MetricOf(const std::string& name) const {
    for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
      if (!name.ends_with(suffix)) continue;
      std::string base = name.substr(0, name.size() - suffix.size());
      const auto type = types.find(base);
      if (type != types.end() && type->second == "histogram") return base;
    }
    return name;
  }

  [[nodiscard]] std::string Value(const std::string& name, const std::string& labels = "") const {
    for (const Sample& sample : samples) {
      if (sample.name == name && sample.labels == labels) return sample.value;
    }
    return "(none)";
  }
};

DaemonStatus Busy() {
  DaemonStatus status;
  status.version = "1.2.3";
  status.model_name = "a \"name\"\\with\nall \xff";
  status.architecture = "llama";
  status.reader = "io_uring";
  status.enforcement = "cgroup";
  status.ceiling_bytes = uint64_t{1} << 53 | 1;  // exact, not as a double
  status.memory.current = 10 << 20;
  status.memory.peak = 12 << 20;
  status.owners.resident = 4096;
  status.memory.failures = 3;
  status.memory.oom_kills = 1;
  status.requests.active = 2;
  status.requests.queued = 5;
  status.requests.prompt_tokens_total = 100;
  status.requests.generated_tokens_total = 42;
  status.requests.draft_tokens_total = 30;
  status.requests.draft_tokens_accepted_total = 11;
  for (const double value : {0.0, 0.02, 0.02, 4.0, 5000.0}) {
    status.requests.first_token_seconds.Observe(value);
  }
  StageHistogram& ffn = status.stage_seconds[static_cast<size_t>(StageKind::kFfn)];
  ffn.Observe(0.25);
  ffn.Observe(1);
  status.flash_bytes_read = 7;
  status.flash_stall_seconds = 1e-9;
  return status;
}

TEST(Metrics, EverySampleHasItsHelpAndTypeAndStandsOnce) {
  const Page page(MetricsPage(Busy(), {.llamacpp = true, .vllm = true}));
  std::set<std::string> seen;
  std::set<std::string> metrics;
  EXPECT_GT(page.samples.size(), 80);
  for (const Sample& sample : page.samples) {
    const std::string metric = page.MetricOf(sample.name);
    EXPECT_EQ(page.helps.count(metric), 1) << sample.name;
    EXPECT_EQ(page.types.count(metric), 1) << sample.name;
    EXPECT_TRUE(seen.insert(sample.name + sample.labels).second) << sample.name << sample.labels;
    metrics.insert(metric);
  }
  EXPECT_EQ(metrics.size(), page.types.size()) << "a metric without samples";
  EXPECT_EQ(page.helps.size(), page.types.size());
}

TEST(Metrics, CountersAloneEndInTotal) {
  const Page page(MetricsPage(Busy(), {.llamacpp = true, .vllm = true}));
  for (const auto& [name, type] : page.types) {
    EXPECT_EQ(name.ends_with("_total"), type == "counter") << name << " is a " << type;
    EXPECT_TRUE(type == "counter" || type == "gauge" || type == "histogram") << type;
    EXPECT_TRUE(name.starts_with("thimble_") || name.starts_with("llamacpp:") ||
                name.starts_with("vllm:"))
        << name;
  }
}

TEST(Metrics, BucketsAreCumulativeAndEndWithAll) {
  const Page page(MetricsPage(Busy()));
  struct Series {
    uint64_t last = 0;
    double bound = -1;
  };
  std::map<std::string, Series> series;  // by name and labels, the bound aside
  for (const Sample& sample : page.samples) {
    if (!sample.name.ends_with("_bucket")) continue;
    const std::string metric = page.MetricOf(sample.name);
    EXPECT_EQ(page.types.at(metric), "histogram");
    EXPECT_TRUE(metric.ends_with("_seconds")) << metric;
    const size_t at = sample.labels.find("le=\"");
    ASSERT_NE(at, std::string::npos);
    const double bound = std::stod(sample.labels.substr(at + 4));  // "+Inf" is infinity
    std::string others = sample.labels.substr(0, at == 1 ? 0 : at - 1);
    if (!others.empty()) others += '}';
    Series& s = series[std::string(metric).append("|").append(others)];
    const uint64_t value = std::stoull(sample.value);
    EXPECT_GE(value, s.last) << sample.name << sample.labels;
    EXPECT_GT(bound, s.bound) << sample.name << sample.labels;
    s = {value, bound};
  }
  EXPECT_EQ(series.size(), 3 + kStageKinds);
  for (const auto& [name, s] : series) {
    const size_t bar = name.find('|');
    EXPECT_TRUE(std::isinf(s.bound)) << name;
    EXPECT_EQ(page.Value(name.substr(0, bar) + "_count", name.substr(bar + 1)),
              std::to_string(s.last));
  }
  const std::string first = "thimble_time_to_first_token_seconds";
  EXPECT_EQ(page.Value(first + "_bucket", "{le=\"0.001\"}"), "1");
  EXPECT_EQ(page.Value(first + "_bucket", "{le=\"0.025\"}"), "3");
  EXPECT_EQ(page.Value(first + "_bucket", "{le=\"600\"}"), "4");
  EXPECT_EQ(page.Value(first + "_count"), "5");
  EXPECT_EQ(page.Value(first + "_sum"), "5004.04");
}

TEST(Metrics, ValuesAreTheStatusExactly) {
  const Page page(MetricsPage(Busy(), {.llamacpp = true, .vllm = true}));
  EXPECT_EQ(page.Value("thimble_ceiling_bytes"), "9007199254740993");
  EXPECT_EQ(page.Value("thimble_memory_peak_bytes"), std::to_string(12 << 20));
  EXPECT_EQ(page.Value("thimble_memory_failures_total"), "3");
  EXPECT_EQ(page.Value("thimble_oom_kills_total"), "1");
  EXPECT_EQ(page.Value("thimble_flash_stall_seconds_total"), "1e-09");
  EXPECT_EQ(page.Value("thimble_stage_seconds_sum", "{kind=\"ffn\"}"), "1.25");
  EXPECT_EQ(page.Value("thimble_stage_seconds_bucket", "{kind=\"ffn\",le=\"0.25\"}"), "1");
  EXPECT_EQ(page.Value("thimble_stage_seconds_bucket", "{kind=\"ffn\",le=\"+Inf\"}"), "2");
  EXPECT_EQ(page.Value("thimble_stage_seconds_count", "{kind=\"embed\"}"), "0");
  EXPECT_EQ(page.Value("thimble_requests_queued"), "5");
  EXPECT_EQ(page.Value("llamacpp:prompt_tokens_total"), "100");
  EXPECT_EQ(page.Value("llamacpp:tokens_predicted_total"), "42");
  EXPECT_EQ(page.Value("thimble_draft_tokens_total"), "30");
  EXPECT_EQ(page.Value("thimble_draft_tokens_accepted_total"), "11");
  EXPECT_EQ(page.Value("llamacpp:requests_processing"), "2");
  EXPECT_EQ(page.Value("llamacpp:requests_deferred"), "5");
  EXPECT_EQ(page.Value("vllm:num_requests_waiting"), "5");
  EXPECT_EQ(page.Value("vllm:time_to_first_token_seconds_count"), "5");
  EXPECT_EQ(page.Value("thimble_memory_owned_bytes", "{owner=\"resident\"}"), "4096");
}

TEST(Metrics, LabelsOfAnyBytesAreEscapedAndUtf8) {
  const Page page(MetricsPage(Busy()));
  EXPECT_EQ(page.Value("thimble_model_info", R"({name="a \"name\"\\with\nall )"
                                             "\xef\xbf\xbd"
                                             R"(",architecture="llama"})"),
            "1");
}

TEST(Metrics, WhatIsNotKnownIsLeftOut) {
  DaemonStatus status = Busy();
  status.ceiling_bytes = 0;  // none
  status.memory.peak = 0;    // the kernel does not tell
  const Page page(MetricsPage(status));
  EXPECT_EQ(page.types.count("thimble_ceiling_bytes"), 0);
  EXPECT_EQ(page.types.count("thimble_headroom_bytes"), 0);
  EXPECT_EQ(page.types.count("thimble_memory_peak_bytes"), 0);
  for (const auto& [name, type] : page.types) EXPECT_TRUE(name.starts_with("thimble_")) << name;
  status.ceiling_bytes = 1;  // lowered below what is in use
  EXPECT_EQ(Page(MetricsPage(status)).Value("thimble_headroom_bytes"), "0");
}

}  // namespace
}  // namespace thimble
