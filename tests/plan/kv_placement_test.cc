// Where a plan has room for keys and values, and for small tiles, and what gives way to them.
#include <gtest/gtest.h>

#include <algorithm>

#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"
#include "tests/plan/fake_model.h"

namespace thimble {
namespace {

// Keys and values take the end of the arena: behind the weights where there is room, else over the
// resident ones, of which each part is spread through the pass.
TEST(Planner, KeysAndValuesLieOverTheEndOfTheResidentSet) {
  const auto model = MakeFakeModel(SmolShape());
  const uint64_t slot = 720 * kKiB;
  for (const uint64_t budget : {8 * kMiB, 16 * kMiB, 56 * kMiB}) {
    PlanOptions options;
    options.budget_bytes = budget;
    options.step_rows = 12;
    const Result<Plan> without = MakePlan(*model, options);
    SetKv(slot, 2, 512, &options);
    ASSERT_EQ(options.kv_slots, 32U);
    const Result<Plan> plan = MakePlan(*model, options);
    ASSERT_TRUE(plan.ok() && without.ok());
    EXPECT_EQ(plan->resident_bytes, without->resident_bytes);
    EXPECT_LE(plan->peak_bytes, budget);
    EXPECT_EQ(plan->kv_offset + plan->kv_bytes, plan->small_offset);
    EXPECT_EQ(plan->kv_bytes % slot, 0U);
    EXPECT_GE(plan->kv_offset, plan->step_end);
    EXPECT_EQ(plan->kv_bytes,
              std::min(32 * slot, (plan->small_offset - plan->step_end) / slot * slot));
    // Where half of the resident set has given way, what stays is in every quarter of the pass.
    const uint64_t half = plan->resident_offset + plan->resident_bytes / 2;
    std::array<uint64_t, 4> stays{};
    uint64_t seen = 0;
    for (const Tile& tile : plan->tiles) {
      if (tile.resident_offset < half) {
        stays[std::min<uint64_t>(3, seen * 4 / plan->model_bytes)] += tile.bytes;
      }
      seen += tile.bytes;
    }
    // With a few tiles, whole ones count.
    for (const uint64_t bytes : stays) {
      EXPECT_GT(bytes + plan->tile_bytes, plan->resident_bytes / 10) << budget;
    }
  }
  PlanOptions options;
  options.max_rows = 12;
  SetKv(slot, 2, 512, &options);
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_TRUE(plan.ok());
  for (const Tile& tile : plan->tiles)
    EXPECT_LE(tile.resident_offset + tile.bytes, plan->kv_offset);
  EXPECT_EQ(plan->kv_bytes, 32 * slot);
}

// The spare is for what can give way; all else is as without it, and fits into the budget.
TEST(Planner, TheSpareIsForResidentTilesAndKeysAndValuesAlone) {
  const auto model = MakeFakeModel(SmolShape());
  for (const uint64_t budget : {7 * kMiB, 15 * kMiB, 55 * kMiB}) {
    PlanOptions options;
    options.budget_bytes = budget;
    options.max_rows = 128;
    options.step_rows = options.max_logit_rows = 16;
    SetKv(720 * kKiB, 8, 512, &options);
    const Result<Plan> without = MakePlan(*model, options);
    options.spare_bytes = 4 * kMiB;
    const Result<Plan> plan = MakePlan(*model, options);
    ASSERT_TRUE(plan.ok() && without.ok());
    EXPECT_EQ(plan->ring_bytes, without->ring_bytes);
    EXPECT_EQ(plan->step_end, without->step_end);
    EXPECT_EQ(plan->wide_end, without->wide_end);
    EXPECT_LE(plan->wide_end, budget);
    EXPECT_LE(plan->peak_bytes, budget + 4 * kMiB);
    EXPECT_GT(plan->peak_bytes + plan->tile_bytes, budget + 4 * kMiB);
    EXPECT_GE(plan->resident_bytes + plan->tile_bytes, without->resident_bytes + 4 * kMiB);
    EXPECT_GE(plan->kv_bytes, without->kv_bytes);
    // With all of it given up, keys and values have the places that they had.
    EXPECT_GE(plan->small_offset - plan->step_end - 4 * kMiB,
              without->small_offset - without->step_end);
    EXPECT_EQ(plan->peak_bytes - plan->small_offset, without->peak_bytes - without->small_offset);
  }
  PlanOptions options;
  options.max_rows = 12;
  const Result<Plan> without = MakePlan(*model, options);
  options.spare_bytes = 4 * kMiB;
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_TRUE(plan.ok() && without.ok());
  EXPECT_EQ(plan->peak_bytes, without->peak_bytes) << "there is no ceiling";
}

TEST(Planner, SmallTilesStayWhereNeitherKeysAndValuesNorASteppingPassComes) {
  const auto model = MakeFakeModel(SmolShape());
  PlanOptions options;
  options.budget_bytes = 8 * kMiB;
  options.max_rows = 64;
  options.step_rows = 12;
  SetKv(720 * kKiB, 8, 512, &options);
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_TRUE(plan.ok());
  EXPECT_GT(plan->pass_bytes, 0U);
  EXPECT_LT(plan->kv_offset, plan->resident_end);
  EXPECT_LE(plan->peak_bytes, options.budget_bytes);
  size_t small = 0;
  for (const Tile& tile : plan->tiles) {
    if (tile.bytes > 32 * kKiB) continue;
    ++small;
    EXPECT_GE(tile.resident_offset, plan->small_offset) << tile.tensor->name;
    EXPECT_LE(tile.resident_offset + tile.bytes, plan->peak_bytes) << tile.tensor->name;
  }
  EXPECT_GE(small, size_t{2} * model->n_layers);
}

TEST(Planner, TheRingLeavesRoomForASlotOfEachRequest) {
  FakeShape shape;  // the paper's miniature
  shape.n_layers = 6;
  shape.type = TensorType::kQ4_0;
  const auto model = MakeFakeModel(shape);
  const uint64_t slot = 576 * kKiB;
  PlanOptions options;
  options.budget_bytes = 7 * kMiB;
  options.step_rows = options.max_logit_rows = 9;
  SetKv(slot, 9, 512, &options);
  const Result<Plan> nine = MakePlan(*model, options);
  SetKv(slot, 1, 512, &options);
  const Result<Plan> one = MakePlan(*model, options);
  ASSERT_TRUE(nine.ok() && one.ok());
  EXPECT_GE(nine->kv_bytes, 9 * slot);
  EXPECT_LT(nine->ring_bytes, one->ring_bytes);
}

TEST(Planner, NothingLiesBehindThePeakWhateverTheBudget) {
  const auto model = MakeFakeModel(FakeShape());
  PlanOptions options;
  options.max_rows = 32;
  options.step_rows = 12;
  SetKv(1152 * kKiB, 8, 512, &options);
  for (uint64_t budget = kMiB; budget < 6 * kMiB; budget += 37'003) {
    options.budget_bytes = budget;
    const Result<Plan> plan = MakePlan(*model, options);
    if (!plan.ok()) continue;
    EXPECT_LE(plan->peak_bytes, budget);
    EXPECT_LE(plan->small_offset, plan->peak_bytes) << budget;
    EXPECT_EQ(plan->kv_offset + plan->kv_bytes, plan->small_offset) << budget;
    EXPECT_LE(plan->resident_end, plan->small_offset) << budget;
  }
}

TEST(Planner, SmallTilesThatAreMuchOfTheModelAreSpreadAsOthersAre) {
  FakeShape shape;
  shape.n_layers = 6;
  shape.n_heads = shape.n_kv_heads = 4;
  shape.head_dim = 16;
  shape.ffn_size = 128;
  shape.vocab_size = 256;
  const auto model = MakeFakeModel(shape);
  PlanOptions options;
  options.max_rows = 4;
  const Result<Plan> all = MakePlan(*model, options);
  ASSERT_TRUE(all.ok());
  ASSERT_LE(all->tile_bytes, 32 * kKiB);
  options.budget_bytes = all->step_end + all->model_bytes / 2;
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_GT(plan->pass_bytes, 0U);
  EXPECT_GT(plan->resident_bytes, 0U);
  EXPECT_EQ(plan->peak_bytes, std::max(plan->wide_end, plan->resident_end));
  EXPECT_EQ(plan->resident_end - plan->resident_offset, plan->resident_bytes);
}

// Where the smallest ring leaves no room for the slots either, a larger one costs nothing.
TEST(Planner, TheRingIsNotSmallForSlotsThatDoNotFitAnyway) {
  FakeShape shape;  // GPT-2 small
  const auto model = MakeFakeModel(shape);
  PlanOptions options;
  options.budget_bytes = 7 * kMiB;
  options.step_rows = options.max_logit_rows = 12;
  const uint64_t slot = 1152 * kKiB;
  SetKv(slot, 5, 512, &options);
  const Result<Plan> five = MakePlan(*model, options);
  SetKv(slot, 1, 512, &options);
  const Result<Plan> one = MakePlan(*model, options);
  ASSERT_TRUE(five.ok() && one.ok());
  EXPECT_LT(five->kv_bytes, 5 * slot);
  EXPECT_EQ(five->ring_bytes, one->ring_bytes);
  EXPECT_GE(five->ring_bytes, 2 * kMiB);
}

}  // namespace
}  // namespace thimble
