// The resident set as passes and others in the control group take from it: the same logits, and the
// weights come back.
#include <gtest/gtest.h>

#include <vector>

#include "tests/run/runner_fixture.h"

namespace thimble {
namespace {

// Some passes with the few rows of generation, some with the many of a prompt.
TEST_F(RunnerTest, APromptOverTheResidentSetChangesNothingAndItsWeightsComeBack) {
  const std::vector<int32_t> tokens = SomeTokens(200);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 1);
  for (const Granularity granularity : {Granularity::kHead, Granularity::kOp, Granularity::kAuto}) {
    PlanOptions options = Options(granularity, 1800 * kKiB, 128);
    options.step_rows = 8;
    options.max_logit_rows = 8;
    Open(options);
    const Plan& plan = *session_.plan;
    ASSERT_EQ(plan.max_rows, 128U);
    ASSERT_GT(plan.wide_end, plan.resident_offset);
    KvSequence sequence = Sequence(tokens);
    Recorder recorder;
    std::vector<uint64_t> read;
    uint32_t at = 0;
    for (const uint32_t rows : {1U, 1U, 128U, 1U, 1U, 8U, 9U, 40U, 3U, 8U}) {
      const uint32_t wanted = std::min(rows, 8U);
      recorder.first_row = at + rows - wanted;
      const PassItem item = {&sequence, std::span(tokens).subspan(at, rows), wanted, &recorder};
      const uint64_t before = session_.runner->reader().stats().bytes;
      const Status status = Pass({&item, 1});
      ASSERT_TRUE(status.ok()) << status.ToString();
      read.push_back(session_.runner->reader().stats().bytes - before);
      at += rows;
    }
    ASSERT_EQ(at, tokens.size());
    ASSERT_TRUE(session_.kv->CloseSequence(sequence).ok());
    for (const auto& [row, logits] : recorder.rows) {
      EXPECT_TRUE(logits == expected.at(row)) << GranularityName(granularity) << " " << row;
    }
    // A prompt reads what is streamed once, with what gives way to it, and the embedding's rows;
    // the pass after it brings that back, the next one reads no more than before.
    const uint64_t over_bytes = plan.wide_end - plan.resident_offset + plan.tile_bytes;
    // Each tile's read begins and ends at a page.
    const uint64_t over = over_bytes + over_bytes / plan.tile_bytes * 2 * kReadAlignment;
    const uint64_t ahead = plan.ring_bytes;  // thrown away where the order of reading changes
    EXPECT_LE(read[2], read[1] + over + ahead + 128 * 2 * 4096);
    EXPECT_LE(read[3], read[1] + over + ahead);
    EXPECT_LE(read[4], read[1] + plan.span_bytes);
  }
}

// Given up and taken back at any step of a pass, and between passes.
TEST_F(RunnerTest, ResidentWeightsThatAreYieldedAndTakenBackChangeNothing) {
  const std::vector<int32_t> tokens = SomeTokens(60);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 1);
  PlanOptions options = Options(Granularity::kAuto, 1800 * kKiB, 32);
  options.step_rows = 8;
  options.max_logit_rows = 8;
  Open(options);
  ASSERT_GT(session_.plan->resident_bytes, 0U);
  KvSequence sequence = Sequence(tokens);
  Recorder recorder;
  Runner& runner = *session_.runner;
  uint32_t at = 0;
  uint32_t steps = 0;
  std::vector<uint64_t> read;
  for (const uint32_t rows : {8U, 8U, 1U, 1U, 1U, 1U, 32U, 1U, 1U, 6U}) {
    const uint32_t wanted = std::min(rows, 8U);
    recorder.first_row = at + rows - wanted;
    const PassItem item = {&sequence, std::span(tokens).subspan(at, rows), wanted, &recorder};
    const uint64_t before = runner.reader().stats().bytes;
    ASSERT_TRUE(runner.Begin({&item, 1}).ok());
    // Passes 2 and 3: given up from the beginning; 4 and 5: whole; the others: to and fro.
    if (read.size() == 2) runner.Yield(64 * kKiB);
    if (read.size() == 4) runner.Yield(0);
    for (bool done = false; !done;) {
      const Result<bool> step = runner.Step();
      ASSERT_TRUE(step.ok()) << step.status().ToString();
      done = *step;
      const bool steady = read.size() >= 2 && read.size() < 6;
      if (!steady && ++steps % 3 == 0) runner.Yield(steps % 2 == 0 ? 64 * kKiB : 0);
    }
    read.push_back(runner.reader().stats().bytes - before);
    at += rows;
  }
  ASSERT_EQ(at, tokens.size());
  ASSERT_TRUE(session_.kv->CloseSequence(sequence).ok());
  for (const auto& [row, logits] : recorder.rows) EXPECT_TRUE(logits == expected.at(row)) << row;
  const Plan& plan = *session_.plan;
  const uint64_t slack = plan.ring_bytes + plan.span_bytes;
  EXPECT_GE(read[3] + slack, plan.pass_bytes + plan.resident_end - plan.resident_offset);
  EXPECT_LE(read[5], plan.pass_bytes + plan.pass_bytes / 4 + slack);
}

TEST_F(RunnerTest, ResidentWeightsAreReadOnce) {
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  Run(SomeTokens(4), 4);
  const uint64_t after_first = session_.runner->reader().stats().bytes;
  EXPECT_GT(after_first, session_.plan->model_bytes);
  Run(SomeTokens(4, 5), 4);
  // The position embedding's rows are all that is read again.
  EXPECT_LT(session_.runner->reader().stats().bytes - after_first, 64 * kKiB);
}

}  // namespace
}  // namespace thimble
