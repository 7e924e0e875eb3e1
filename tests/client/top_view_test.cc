#include "client/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thimble {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMib = 1 << 20;

v1::GetStatusResponse Example() {
  v1::GetStatusResponse status;
  status.set_version("1.2.3");
  status.set_model_name("SmolLM2 135M");
  status.set_architecture("llama");
  status.set_ready(true);
  status.set_uptime_seconds(100);
  status.set_ceiling_bytes(64 * kMib);
  status.set_enforcement("cgroup");
  status.set_memory_current_bytes(60 * kMib);
  status.set_memory_peak_bytes(62 * kMib);
  status.set_memory_page_cache_bytes(4 * kMib);
  status.set_plan_peak_bytes(48 * kMib);
  status.set_resident_bytes(40 * kMib);
  status.set_active_requests(2);
  status.set_queued_requests(3);
  status.set_generated_tokens_total(1000);
  status.set_flash_bytes_read(50 * kMib);
  status.set_flash_stall_seconds(10);
  status.set_stage("layer 3 ffn");
  return status;
}

// The columns of a line, escape sequences not counted.
int Columns(const std::string& line) {
  int columns = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      while (i < line.size() && line[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(line[i]) & 0xC0) != 0x80) {
      ++columns;
    }
  }
  return columns;
}

TEST(RatesBetween, IsByTheDaemonsClock) {
  const v1::GetStatusResponse before = Example();
  v1::GetStatusResponse now = before;
  now.set_uptime_seconds(104);
  now.set_generated_tokens_total(1010);
  now.set_flash_bytes_read(90 * kMib);
  now.set_flash_stall_seconds(11);
  const Rates rates = RatesBetween(before, now);
  EXPECT_DOUBLE_EQ(rates.generated_tokens, 2.5);
  EXPECT_DOUBLE_EQ(rates.flash_bytes, 10.0 * kMib);
  EXPECT_DOUBLE_EQ(rates.stalled, 0.25);
}

TEST(RatesBetween, AnotherDaemonHasNone) {
  v1::GetStatusResponse now = Example();
  now.set_uptime_seconds(1);
  now.set_generated_tokens_total(5);
  EXPECT_EQ(RatesBetween(Example(), now).generated_tokens, 0);
}

TEST(OwnersOf, AddUpToWhatIsInUse) {
  const Owners owners = OwnersOf(Example());
  EXPECT_EQ(owners.weights, 40 * kMib);
  EXPECT_EQ(owners.buffers, 8 * kMib);
  EXPECT_EQ(owners.cache, 4 * kMib);
  EXPECT_EQ(owners.program, 8 * kMib);
}

TEST(TopLines, NoLineIsWiderThanTheTerminal) {
  Rates rates;
  rates.generated_tokens = 12.34;
  for (const bool color : {false, true}) {
    for (const bool utf8 : {false, true}) {
      for (int columns = 1; columns <= 200; ++columns) {
        for (const std::string& line : TopLines(Example(), rates, {columns, utf8, color})) {
          ASSERT_LE(Columns(line), columns) << line;
        }
      }
    }
  }
}

TEST(TopLines, SaysWhatTheDaemonDoes) {
  Rates rates;
  rates.generated_tokens = 12.34;
  std::string text;
  for (const std::string& line : TopLines(Example(), rates, {120, false, false})) {
    text += line + "\n";
  }
  for (const char* part : {"thimbled 1.2.3", "SmolLM2 135M", "60.0 MiB of 64.0 MiB (cgroup)",
                           "2 active, 3 queued", "12.3/s generated", "layer 3 ffn", "ready"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  // 118 columns for 64 MiB: 40 of weights, 8 of buffers, 8 of program, 4 of page cache.
  EXPECT_THAT(text,
              HasSubstr("[" + std::string(74, '#') + std::string(15, '=') + std::string(14, '%') +
                        std::string(8, '+') + std::string(7, '.') + "]"));
}

TEST(TopLines, SaysWhyItIsNotReady) {
  v1::GetStatusResponse status = Example();
  status.set_ready(false);
  status.set_not_ready_reason("stopping: SIGTERM");
  EXPECT_THAT(TopLines(status, {}, {100, false, false})[1], HasSubstr("not ready: stopping"));
  EXPECT_THAT(PlainLine(status, {}), HasSubstr("not ready"));
}

TEST(TopLines, WithoutACeilingTheGaugeShowsTheParts) {
  v1::GetStatusResponse status = Example();
  status.set_ceiling_bytes(0);
  const std::vector<std::string> lines = TopLines(status, {}, {62, false, false});
  EXPECT_EQ(lines[4].find('.'), std::string::npos) << lines[4];
}

}  // namespace
}  // namespace thimble
