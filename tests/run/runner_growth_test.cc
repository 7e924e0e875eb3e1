// What the arena has in RAM and may still take, on a model of many huge pages whose weights are all
// zero: what the pressure gauge counts on.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "daemon/run/runner.h"
#include "storage/base/bytes.h"
#include "tests/plan/fake_model.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

constexpr uint64_t kHuge = 2 * kMiB;
// Pages between buffers that nothing is written to, where the kernel has no huge pages to give.
constexpr uint64_t kGaps = 256 * kKiB;

class NoSink final : public LogitsSink {
 public:
  Status OnLogits(uint32_t, uint32_t, std::span<const float>) override { return {}; }
};

class RunnerGrowthTest : public testing::Test {
 protected:
  void Open(uint64_t budget_bytes) {
    FakeShape shape;
    shape.n_layers = 3;
    shape.vocab_size = 4000;
    model_ = MakeFakeModel(shape);
    const TensorInfo& last = model_->gguf.tensors.back();
    const std::string path = directory_.path() + "/zeros.gguf";
    std::ofstream(path).flush();
    std::filesystem::resize_file(path, last.offset + last.bytes);
    Result<std::unique_ptr<RandomAccessFile>> file = OpenFile(path);
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    file_ = std::move(*file);
    model_->identity = file_->Identity().value();

    PlanOptions options;
    options.budget_bytes = budget_bytes;
    options.max_rows = 64;
    options.step_rows = 8;
    options.max_logit_rows = 1;
    const KvShape kv_shape = {shape.n_layers, shape.n_kv_heads, shape.head_dim, KvType::kF16};
    slot_bytes_ = KvPool::SlotBytes(kv_shape);
    SetKv(slot_bytes_, 1, 256, &options);
    Result<Plan> plan = MakePlan(*model_, options);
    ASSERT_TRUE(plan.ok()) << plan.status().ToString();
    plan_ = std::move(*plan);
    Result<std::unique_ptr<LmdbEnv>> env =
        LmdbEnv::Open(directory_.path() + "/cache", {.map_bytes = 256 * kMiB});
    ASSERT_TRUE(env.ok()) << env.status().ToString();
    env_ = std::move(*env);
    kv_ = KvCache::Open(*env_, model_->fingerprint, kv_shape, kGiB).value();
    store_ = StageStore::Open(*env_).value();
    runner_ =
        Runner::Open(*model_, plan_, *file_, ReaderBackend::kBufferedPread, *kv_, *store_).value();
    sequence_ = kv_->OpenSequence(tokens_, 512).value();
  }
  void TearDown() override {
    if (kv_ == nullptr) return;
    EXPECT_TRUE(kv_->CloseSequence(sequence_).ok());
  }

  void Begin(uint32_t rows) {
    item_ = {&sequence_, std::span(tokens_).subspan(sequence_.n_tokens, rows), 1, &sink_};
    const Status status = runner_->Begin({&item_, 1});
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  bool Step() {
    const Result<bool> done = runner_->Step();
    EXPECT_TRUE(done.ok()) << done.status().ToString();
    return !done.ok() || *done;
  }
  void Pass(uint32_t rows) {
    Begin(rows);
    while (!Step()) continue;
  }
  [[nodiscard]] uint64_t InRam() const {
    const ArenaUse use = runner_->arena_use();
    return use.work_bytes + use.resident_bytes;
  }

  [[nodiscard]] uint64_t LargestTile() const {
    uint64_t bytes = 0;
    for (const Tile& tile : plan_.tiles) bytes = std::max(bytes, tile.bytes);
    return bytes;
  }

  uint64_t slot_bytes_ = 0;
  TempDir directory_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<RandomAccessFile> file_;
  Plan plan_;
  std::unique_ptr<LmdbEnv> env_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<StageStore> store_;
  std::unique_ptr<Runner> runner_;
  const std::vector<int32_t> tokens_ = std::vector<int32_t>(256, 5);
  KvSequence sequence_;
  NoSink sink_;
  PassItem item_;
};

TEST_F(RunnerGrowthTest, AtFirstItIsTheWholeArenaAndInTheEndNothing) {
  Open(20 * kMiB);
  const uint64_t without_slots = plan_.resident_end + plan_.peak_bytes - plan_.small_offset;
  EXPECT_EQ(runner_->Growth(0, plan_.peak_bytes), without_slots) << "the kernel need not be asked";
  EXPECT_LE(runner_->Growth(0, 0), without_slots);
  EXPECT_GE(runner_->Growth(0, 0) + InRam(), without_slots);
  for (const uint32_t rows : {64U, 1U, 1U}) Pass(rows);
  EXPECT_LE(runner_->Growth(0, 0), kGaps);
  EXPECT_EQ(runner_->Growth(0, plan_.peak_bytes), runner_->Growth(0, 0)) << "still known";
}

TEST_F(RunnerGrowthTest, WhatIsGivenUpIsNotGrowthAndWouldBe) {
  Open(20 * kMiB);
  for (const uint32_t rows : {64U, 1U, 1U}) Pass(rows);
  const uint64_t before = InRam();
  EXPECT_TRUE(runner_->Yield(2 * kHuge));
  const uint64_t given_up = before - InRam();
  EXPECT_GE(given_up + kGaps, 2 * kHuge);
  EXPECT_LE(given_up, 2 * kHuge + kReadAlignment);
  EXPECT_LE(runner_->Growth(2 * kHuge, 0), kGaps);
  EXPECT_GE(runner_->Growth(0, 0), given_up);
  EXPECT_LE(runner_->Growth(0, 0), given_up + kGaps);
  const uint64_t one = runner_->Growth(kHuge, 0);
  EXPECT_GE(one + kGaps, kHuge);
  EXPECT_LE(one, kHuge + kGaps);
  for (int pass = 0; pass < 3; ++pass) Pass(1);
  EXPECT_LE(InRam(), before - given_up) << "and is not taken back by passes";
  EXPECT_LE(runner_->Growth(2 * kHuge, 0), kGaps);

  EXPECT_TRUE(runner_->Yield(kHuge));
  EXPECT_GE(runner_->Growth(kHuge, 0) + kGaps, one);
  for (int pass = 0; pass < 3; ++pass) Pass(1);
  // Where pages are small, the part of a tile that reaches into what is still given up.
  EXPECT_LE(runner_->Growth(kHuge, 0), kGaps + LargestTile());
  EXPECT_LE(InRam(), before - given_up + one);
}

TEST_F(RunnerGrowthTest, SlotsBehindTheWeightsCountOnceTheyAreInUse) {
  Open(48 * kMiB);
  ASSERT_GE(plan_.kv_offset, plan_.resident_end) << "room for all";
  Pass(64);
  EXPECT_LE(runner_->Growth(0, 0), kGaps);
  Begin(64);
  const uint64_t in_use = runner_->Growth(0, 0);
  EXPECT_GE(in_use + kGaps, 2 * slot_bytes_) << "for 64 tokens, empty as yet";
  EXPECT_LE(in_use, 3 * slot_bytes_ + kGaps);
  while (!Step()) continue;
  EXPECT_LE(runner_->Growth(0, 0), kGaps);
}

TEST_F(RunnerGrowthTest, InTheMiddleOfATileNothingIsGivenUpAndSoItSays) {
  Open(20 * kMiB);
  for (const uint32_t rows : {64U, 1U, 1U}) Pass(rows);
  Begin(64);
  int refused = 0;
  int given_up = 0;
  for (bool done = false; !done;) {
    done = Step();
    const uint64_t before = InRam();
    if (runner_->Yield(kHuge)) {
      ++given_up;
      if (given_up == 1) {
        EXPECT_LE(InRam() + kHuge, before);  // from then on it is streamed
      }
      EXPECT_TRUE(runner_->Yield(0));
    } else {
      ++refused;
      EXPECT_EQ(InRam(), before);
      EXPECT_TRUE(runner_->Yield(0)) << "as it is";
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(given_up, 0);
}

}  // namespace
}  // namespace thimble
