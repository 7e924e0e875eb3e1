// The runner on the built-in model: one text at every plan, the arena's measure, passes that share
// weights, dropped items, faults. Against golden numbers the logits are held by
// tests/e2e/logits_test.py.
#include "daemon/run/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "tests/run/runner_fixture.h"

namespace thimble {
namespace {

TEST_F(RunnerTest, LogitsAreTheSameToTheBitForEveryPlan) {
  const std::vector<int32_t> tokens = SomeTokens(75);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 64);
  ASSERT_EQ(expected.size(), tokens.size());
  ASSERT_EQ(expected.begin()->second.size(), 1024U);
  struct Case {
    Granularity granularity;
    uint64_t budget;
    uint32_t rows;
    size_t chunk;
  };
  for (const Case& c :
       {Case{Granularity::kHead, 700 * kKiB, 64, 7}, Case{Granularity::kHead, kGiB, 64, 64},
        Case{Granularity::kOp, 600 * kKiB, 64, 1}, Case{Granularity::kOp, kGiB, 33, 33},
        Case{Granularity::kAuto, 700 * kKiB, 64, 5}, Case{Granularity::kAuto, kMiB, 64, 64},
        Case{Granularity::kAuto, UINT64_MAX, 1, 1}}) {
    Open(Options(c.granularity, c.budget, c.rows));
    const Logits got = Run(tokens, std::min<size_t>(c.chunk, session_.plan->max_rows));
    EXPECT_TRUE(got == expected) << GranularityName(c.granularity) << " budget " << c.budget
                                 << " chunk " << c.chunk;
  }
}

// The built-in model has 192 KiB of keys and values a block: with 1 MiB none to all of them have a
// place, over weights that stay otherwise.
TEST_F(RunnerTest, LogitsAreTheSameToTheBitWhereverKeysAndValuesLie) {
  const std::vector<int32_t> tokens = SomeTokens(200);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 64);
  kv_ram_tokens_ = 512;
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    kv_type_ = type;
    Open(Options(Granularity::kAuto, UINT64_MAX, 64));
    const Logits in_ram = Run(tokens, 64);
    if (type == KvType::kF16) {
      EXPECT_TRUE(in_ram == expected);
    }
    EXPECT_EQ(session_.runner->stats().arena_peak_bytes, session_.plan->peak_bytes);
    for (const uint64_t budget : {800 * kKiB, kMiB, kMiB + 300 * kKiB, 2 * kMiB}) {
      for (const uint32_t chunk : {1U, 32U, 50U}) {
        PlanOptions options = Options(Granularity::kAuto, budget, chunk);
        options.step_rows = 1;
        options.max_logit_rows = chunk;
        Open(options);
        const uint64_t kv_bytes = session_.plan->kv_bytes;
        EXPECT_LT(kv_bytes, 16 * 192 * kKiB) << "not all have a place";
        EXPECT_LE(session_.plan->peak_bytes, budget);
        const Logits got = RunOneLogit(tokens, std::min(chunk, session_.plan->max_rows));
        for (const auto& [row, logits] : got) {
          EXPECT_TRUE(logits == in_ram.at(row))
              << KvTypeName(type) << " budget " << budget << " chunk " << chunk << " row " << row;
        }
      }
    }
  }
}

TEST_F(RunnerTest, ItemsThatShareAPassGetWhatTheyGetAlone) {
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const std::vector<int32_t> a = SomeTokens(40);
  const std::vector<int32_t> b = SomeTokens(17, 11);
  const Logits alone_a = Run(a, 40);
  const Logits alone_b = Run(b, 17);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  KvSequence sequence_a = Sequence(a);
  KvSequence sequence_b = Sequence(b);
  Recorder recorder_a;
  Recorder recorder_b;
  const std::vector<PassItem> items = {{&sequence_a, a, 40, &recorder_a},
                                       {&sequence_b, b, 17, &recorder_b}};
  const Status status = Pass(items);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(recorder_a.rows == alone_a);
  EXPECT_TRUE(recorder_b.rows == alone_b);
}

// Keeps the first token of a pass alone, as when the draft behind it is wrong.
class KeepsOne final : public LogitsSink {
 public:
  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override {
    return row == 0 ? recorder.OnLogits(0, first_token, logits) : Status();
  }
  uint32_t TokensToKeep(uint32_t) override { return 1; }
  Recorder recorder;
};

TEST_F(RunnerTest, RefusedDraftsLeaveNothingBehind) {
  const std::vector<int32_t> tokens = SomeTokens(75);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 64);
  for (const uint32_t drafts : {1U, 5U, 40U}) {
    Open(Options(Granularity::kAuto, UINT64_MAX, 64));
    KvSequence sequence = Sequence(tokens);
    KeepsOne sink;
    for (uint32_t at = 0; at < tokens.size(); ++at) {
      std::vector<int32_t> rows(1 + drafts, 900);
      rows[0] = tokens[at];
      sink.recorder.first_row = at;
      const PassItem item = {&sequence, rows, 1 + drafts, &sink};
      const Status status = Pass({&item, 1});
      ASSERT_TRUE(status.ok()) << status.ToString();
      ASSERT_EQ(sequence.n_tokens, at + 1);
    }
    EXPECT_TRUE(sink.recorder.rows == expected) << drafts;
    EXPECT_EQ(session_.kv->stats().blocks, 2U) << "none of those that drafts had completed";
  }
}

// Of the tokens' distributions with q8_0 from those with f16, the mean divergence in nats.
double Divergence(const Logits& f16, const Logits& q8) {
  double sum = 0;
  for (const auto& [row, logits] : f16) {
    const std::vector<float>& other = q8.at(row);
    double total = 0;
    double other_total = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      total += std::exp(double{logits[i]});
      other_total += std::exp(double{other[i]});
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      const double p = std::exp(double{logits[i]}) / total;
      sum += p * (double{logits[i]} - std::log(total) - double{other[i]} + std::log(other_total));
    }
  }
  return sum / static_cast<double>(f16.size());
}

TEST_F(RunnerTest, KeysAndValuesAsQ8AreCloseToF16AndTheSameForEveryPass) {
  const std::vector<int32_t> tokens = SomeTokens(150);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits f16 = Run(tokens, 64);
  const uint64_t f16_bytes = session_.kv->stats().bytes;
  kv_type_ = KvType::kQ8_0;
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits q8 = Run(tokens, 64);
  EXPECT_LT(session_.kv->stats().bytes, f16_bytes);
  const double divergence = Divergence(f16, q8);
  std::printf("divergence of q8_0 from f16: %g nats a token; %llu bytes, %llu as f16\n", divergence,
              static_cast<unsigned long long>(session_.kv->stats().bytes),
              static_cast<unsigned long long>(f16_bytes));
  EXPECT_GT(divergence, 0) << "nothing was quantized";
  EXPECT_LT(divergence, 1e-3);
  for (const size_t chunk : {1, 7, 33}) {
    Open(Options(chunk == 7 ? Granularity::kHead : Granularity::kAuto, kMiB, 64));
    EXPECT_TRUE(Run(tokens, chunk) == q8) << chunk;
  }
}

TEST_F(RunnerTest, ThePlansPeakIsWhatTheArenaMeasuresToTheByte) {
  for (const Granularity granularity : {Granularity::kHead, Granularity::kOp, Granularity::kAuto}) {
    for (const uint64_t budget : {kMiB, 2 * kMiB, UINT64_MAX}) {
      Open(Options(granularity, budget, 64));
      EXPECT_LE(session_.plan->peak_bytes, budget);
      Run(SomeTokens(5), 5);
      EXPECT_EQ(session_.runner->stats().arena_peak_bytes, session_.plan->peak_bytes)
          << GranularityName(granularity) << " " << budget;
    }
  }
}

TEST_F(RunnerTest, ADroppedItemStopsAndTheOthersGoOn) {
  Open(Options(Granularity::kHead, kMiB, 64));
  const std::vector<int32_t> a = SomeTokens(9);
  const std::vector<int32_t> b = SomeTokens(12, 3);
  const Logits alone = Run(a, 9);
  KvSequence sequence_a = Sequence(a);
  KvSequence sequence_b = Sequence(b);
  Recorder recorder_a;
  Recorder recorder_b;
  const std::vector<PassItem> items = {{&sequence_b, b, 12, &recorder_b},
                                       {&sequence_a, a, 9, &recorder_a}};
  ASSERT_TRUE(session_.runner->Begin(items).ok());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(session_.runner->Step().ok());
  session_.runner->Drop(0);
  ASSERT_TRUE(session_.kv->CloseSequence(sequence_b).ok());
  for (bool done = false; !done;) {
    const Result<bool> step = session_.runner->Step();
    ASSERT_TRUE(step.ok()) << step.status().ToString();
    done = *step;
  }
  EXPECT_TRUE(recorder_a.rows == alone);
  EXPECT_TRUE(recorder_b.rows.empty());
  EXPECT_EQ(sequence_a.n_tokens, 9U);
}

TEST_F(RunnerTest, WhenAllItemsAreDroppedThePassIsOver) {
  Open(Options(Granularity::kAuto, kMiB, 64));
  const std::vector<int32_t> a = SomeTokens(9);
  KvSequence sequence = Sequence(a);
  Recorder recorder;
  const PassItem item = {&sequence, a, 1, &recorder};
  ASSERT_TRUE(session_.runner->Begin({&item, 1}).ok());
  ASSERT_TRUE(session_.runner->Step().ok());
  session_.runner->Drop(0);
  EXPECT_FALSE(session_.runner->running());
  EXPECT_EQ(sequence.n_tokens, 0U);
  EXPECT_TRUE(Pass({&item, 1}).ok());
  EXPECT_EQ(sequence.n_tokens, 9U);
}

TEST_F(RunnerTest, APassWhoseSecondItemIsOverTheQuotaKeepsNeither) {
  Open(Options(Granularity::kAuto, UINT64_MAX, 128));
  const std::vector<int32_t> a = SomeTokens(40);
  const std::vector<int32_t> b = SomeTokens(40, 11);
  Run(a, 40);
  const uint64_t one_block = session_.kv->stats().bytes;
  Open(Options(Granularity::kAuto, UINT64_MAX, 128), nullptr, one_block * 3 / 2);
  KvSequence sequence_a = Sequence(a);
  KvSequence sequence_b = Sequence(b);
  const std::vector<PassItem> items = {{&sequence_a, a, 0, nullptr}, {&sequence_b, b, 0, nullptr}};
  const Status full = Pass(items);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.ToString();
  EXPECT_THAT(full.message(), testing::HasSubstr("keys and values"));
  EXPECT_EQ(sequence_a.n_tokens, 0U);
  EXPECT_EQ(sequence_b.n_tokens, 0U);
  EXPECT_TRUE(Pass({items.data(), 1}).ok());
  EXPECT_EQ(sequence_a.n_tokens, 40U);
  EXPECT_EQ(Pass({&items[1], 1}).code(), StatusCode::kResourceExhausted);
}

TEST_F(RunnerTest, AnErrorOfTheFileNamesTheTensorAndTheNextPassWorks) {
  FaultyFile::Faults faults;
  Open(Options(Granularity::kAuto, kMiB, 64), &faults);
  const std::vector<int32_t> a = SomeTokens(9);
  KvSequence sequence = Sequence(a);
  Recorder recorder;
  const PassItem item = {&sequence, a, 9, &recorder};
  faults.fail_reads = true;
  const Status status = Pass({&item, 1});
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), testing::HasSubstr("read token_embd.weight"));
  EXPECT_THAT(status.message(), testing::HasSubstr("Input/output error"));
  EXPECT_FALSE(session_.runner->running());
  faults.fail_reads = false;
  EXPECT_TRUE(Pass({&item, 1}).ok());
  EXPECT_EQ(recorder.rows.size(), 9U);
}

TEST_F(RunnerTest, AFileThatHasChangedIsDataLossNotGarbage) {
  FaultyFile::Faults faults;
  Open(Options(Granularity::kAuto, kMiB, 64), &faults);
  faults.changed = true;
  const std::vector<int32_t> a = SomeTokens(3);
  KvSequence sequence = Sequence(a);
  Recorder recorder;
  const PassItem item = {&sequence, a, 1, &recorder};
  const Status status = session_.runner->Begin({&item, 1});
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), testing::HasSubstr("has changed since it was loaded"));
}

TEST_F(RunnerTest, APassDuringWhichTheFileChangedKeepsNothing) {
  FaultyFile::Faults faults;
  Open(Options(Granularity::kAuto, kMiB, 64), &faults);
  const std::vector<int32_t> a = SomeTokens(40);
  KvSequence sequence = Sequence(a);
  Recorder recorder;
  const PassItem item = {&sequence, a, 1, &recorder};
  ASSERT_TRUE(session_.runner->Begin({&item, 1}).ok());
  ASSERT_TRUE(session_.runner->Step().ok());
  faults.changed = true;
  Result<bool> step = false;
  while (step.ok() && !*step) step = session_.runner->Step();
  EXPECT_EQ(step.status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(sequence.n_tokens, 0U);
  EXPECT_EQ(session_.kv->stats().blocks, 0U);
}

TEST_F(RunnerTest, TokensAndPositionsOutsideTheModelAreRefused) {
  Open(Options(Granularity::kAuto, kMiB, 64));
  const std::vector<int32_t> bad = {5, 1024};
  KvSequence sequence = Sequence(bad);
  Recorder recorder;
  const PassItem item = {&sequence, bad, 1, &recorder};
  const Status status = session_.runner->Begin({&item, 1});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), testing::HasSubstr("token 1024"));
}

}  // namespace
}  // namespace thimble
