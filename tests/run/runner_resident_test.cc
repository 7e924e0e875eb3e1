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
  ASSERT_LT(MovableBytes(*session_.plan), 2 * kMiB);
  ASSERT_GT(MovableBytes(*session_.plan), 256 * kKiB);
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
    if (read.size() == 2) runner.Yield(2 * kMiB);
    if (read.size() == 4) runner.Yield(0);
    for (bool done = false; !done;) {
      done = Step();
      const bool steady = read.size() >= 2 && read.size() < 6;
      if (!steady && ++steps % 3 == 0) runner.Yield(steps % 2 == 0 ? steps % 5 * 64 * kKiB : 0);
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

// Keys and values that fill the arena give way as far as the spare goes: the same logits, at once
// what can go, and all of it from the next pass on.
TEST_F(RunnerTest, TheSpareIsGivenUpByKeysAndValuesToo) {
  const std::vector<int32_t> tokens = SomeTokens(490);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 1);
  // In small pages: the arena has no huge one.
  const uint64_t spare = 512 * kKiB;
  PlanOptions options = Options(Granularity::kAuto, 1400 * kKiB, 64);
  options.step_rows = options.max_logit_rows = 8;
  options.spare_bytes = spare;
  kv_ram_tokens_ = 512;
  Open(options);
  const Plan& plan = *session_.plan;
  ASSERT_GT(plan.peak_bytes, options.budget_bytes);
  Runner& runner = *session_.runner;
  const auto in_ram = [&] {
    const ArenaUse use = runner.arena_use();
    return use.work_bytes + use.resident_bytes;
  };
  KvSequence sequence = Sequence(tokens);
  Recorder recorder;
  uint32_t at = 0;
  const auto begin = [&](uint32_t rows) {
    const uint32_t wanted = std::min(rows, 8U);
    recorder.first_row = at + rows - wanted;
    const PassItem item = {&sequence, std::span(tokens).subspan(at, rows), wanted, &recorder};
    at += rows;
    Begin({&item, 1});
  };
  for (const uint32_t rows : {64U, 64U, 64U, 64U, 64U, 64U, 64U, 1U, 1U}) {
    begin(rows);
    while (!Step()) continue;
  }
  const uint64_t slot = plan.options.kv_slot_bytes;
  ASSERT_GT(in_ram() + slot, plan.peak_bytes) << "full";
  // Who idles yields what of the spare is in use: the arena is within the budget then.
  EXPECT_GT(runner.SpareInUse() + slot, spare);
  ASSERT_TRUE(runner.Yield(runner.SpareInUse()));
  EXPECT_LE(in_ram(), options.budget_bytes + kReadAlignment);
  ASSERT_TRUE(runner.Yield(0));
  for (int pass = 0; pass < 2; ++pass) {
    begin(1);
    while (!Step()) continue;
  }
  const uint64_t before = session_.kv->stats().ram_blocks;
  begin(1);
  for (int steps = 0; !Step(); ++steps) {
    if (steps != 10) continue;
    while (!runner.Yield(spare)) ASSERT_FALSE(Step());
    EXPECT_LT(session_.kv->stats().ram_blocks, before);
    EXPECT_LE(in_ram(), plan.peak_bytes - spare + slot);
  }
  for (int pass = 0; pass < 3; ++pass) {
    begin(1);
    while (!Step()) continue;
    EXPECT_LE(in_ram(), plan.peak_bytes - spare + kReadAlignment);
    EXPECT_LE(runner.Growth(spare, 0), 64 * kKiB);
  }
  // To and fro at any step.
  uint32_t steps = 0;
  for (const uint32_t rows : {1U, 1U, 1U, 8U, 1U, 1U}) {
    begin(rows);
    do {
      if (++steps % 5 == 0) runner.Yield(steps % 3 * 256 * kKiB);
    } while (!Step());
  }
  ASSERT_TRUE(runner.Yield(0));
  while (at < tokens.size()) {
    begin(1);
    while (!Step()) continue;
  }
  EXPECT_GE(session_.kv->stats().ram_blocks, before) << "they come back";
  ASSERT_TRUE(session_.kv->CloseSequence(sequence).ok());
  for (const auto& [row, logits] : recorder.rows) EXPECT_TRUE(logits == expected.at(row)) << row;
}

// Rows that got a place in the huge page in which the ring ends stay there until the pass is over,
// and no tile comes over them.
TEST_F(RunnerTest, RowsBeforeWhatIsHeldAreLeftAloneByTiles) {
  const std::vector<int32_t> tokens = SomeTokens(448 + 12);
  const std::vector<int32_t> others = SomeTokens(40, 5);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 1);
  const Logits expected_others = Run(others, 1);
  PlanOptions options = Options(Granularity::kAuto, 2100 * kKiB, 64);
  options.step_rows = options.max_logit_rows = 8;
  options.spare_bytes = kMiB;
  kv_ram_tokens_ = 512;
  Open(options);
  const Plan& plan = *session_.plan;
  ASSERT_GT(HeldEnd(plan), plan.kv_offset);
  ASSERT_LT(plan.kv_offset, plan.resident_end);
  KvSequence a = Sequence(tokens);
  KvSequence b = Sequence(others);
  Recorder of_a;
  Recorder of_b;
  const auto begin = [&](uint32_t rows_of_a, uint32_t rows_of_b) {
    const auto item = [](KvSequence& sequence, const std::vector<int32_t>& all, uint32_t rows,
                         Recorder* recorder) {
      recorder->first_row = sequence.n_tokens + rows - 1;
      return PassItem{&sequence, std::span(all).subspan(sequence.n_tokens, rows), 1, recorder};
    };
    std::vector<PassItem> items;
    if (rows_of_a > 0) items.push_back(item(a, tokens, rows_of_a, &of_a));
    if (rows_of_b > 0) items.push_back(item(b, others, rows_of_b, &of_b));
    Begin(items);
  };
  for (int chunk = 0; chunk < 7; ++chunk) {
    begin(64, 0);
    while (!Step()) continue;
  }
  for (int pass = 0; pass < 2; ++pass) {
    begin(1, 0);  // all of the first one's blocks have their places
    while (!Step()) continue;
  }
  for (int pass = 0; pass < 8; ++pass) {
    begin(1, 1);
    for (int steps = 0; !Step(); ++steps) {
      if (pass >= 2 && steps == 3 * pass) session_.runner->Yield(pass % 2 == 0 ? kMiB : 0);
    }
  }
  ASSERT_TRUE(session_.kv->CloseSequence(a).ok());
  ASSERT_TRUE(session_.kv->CloseSequence(b).ok());
  for (const auto& [row, logits] : of_a.rows) EXPECT_TRUE(logits == expected.at(row)) << row;
  for (const auto& [row, logits] : of_b.rows) EXPECT_TRUE(logits == expected_others.at(row)) << row;
  EXPECT_EQ(of_b.rows.size(), 8U);
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
