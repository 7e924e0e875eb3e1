// The plan's promises: every weight once a pass, nothing placed over anything else, inputs that
// were written before, and a peak that is what the budget allows.
#include "daemon/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "storage/base/bytes.h"
#include "storage/weight_reader.h"
#include "tests/plan/fake_model.h"

namespace thimble {
namespace {

Plan PlanOf(const Model& model, Granularity granularity, uint64_t budget = UINT64_MAX,
            uint32_t rows = 64) {
  PlanOptions options;
  options.granularity = granularity;
  options.budget_bytes = budget;
  options.max_rows = rows;
  Result<Plan> plan = MakePlan(model, options);
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
  return plan.ok() ? std::move(plan).value() : Plan{};
}

TEST(Planner, TwelveLayersAtGranularityOpAreThePapers72StagesAndTheEnds) {
  const auto model = MakeFakeModel({});
  const Plan plan = PlanOf(*model, Granularity::kOp);
  EXPECT_EQ(plan.groups.size(), 76U);
  EXPECT_EQ(plan.stages.size(), 76U);
  std::map<StageKind, int> kinds;
  for (const Stage& stage : plan.stages) ++kinds[stage.kind];
  for (const StageKind kind : {StageKind::kAttentionNorm, StageKind::kQkv, StageKind::kAttention,
                               StageKind::kOutput, StageKind::kFfnNorm, StageKind::kFfn}) {
    EXPECT_EQ(kinds[kind], 12) << StageKindName(kind);
  }
  for (const StageKind kind :
       {StageKind::kEmbed, StageKind::kFinalNorm, StageKind::kLogits, StageKind::kSample}) {
    EXPECT_EQ(kinds[kind], 1) << StageKindName(kind);
  }
}

TEST(Planner, GranularityHeadMakesEveryHeadAStageAndEveryStageAGroup) {
  const auto model = MakeFakeModel(SmolShape());
  const Plan plan = PlanOf(*model, Granularity::kHead);
  EXPECT_EQ(plan.stages.size(), 30U * (4 + 2 * 9) + 4);
  EXPECT_EQ(plan.groups.size(), plan.stages.size());
  for (const Stage& stage : plan.stages) {
    if (stage.kind != StageKind::kQkv && stage.kind != StageKind::kAttention) continue;
    EXPECT_EQ(stage.head_end, stage.head_begin + 1);
  }
}

TEST(Planner, WithoutACeilingAutoIsOneGroupAndEverythingStays) {
  const auto model = MakeFakeModel(SmolShape());
  const Plan plan = PlanOf(*model, Granularity::kAuto);
  EXPECT_EQ(plan.groups.size(), 1U);
  EXPECT_EQ(plan.pass_bytes, 0U);
  EXPECT_GE(plan.resident_bytes, plan.model_bytes);
}

TEST(Planner, SlowFlashGetsSmallerTilesAndMoreOfTheModelStays) {
  const auto model = MakeFakeModel(SmolShape());
  PlanOptions options;
  options.budget_bytes = 54 * kMiB;
  std::map<double, uint64_t> tile_bytes;
  std::map<double, uint64_t> resident_bytes;
  for (const double flash : {40e6, 0.0, 2e9}) {
    options.speeds.flash_bytes_per_second = flash;
    const Result<Plan> plan = MakePlan(*model, options);
    ASSERT_TRUE(plan.ok()) << plan.status().ToString();
    tile_bytes[flash] = plan->tile_bytes;
    resident_bytes[flash] = plan->resident_bytes;
  }
  EXPECT_LE(tile_bytes[40e6], 128 * kKiB);
  EXPECT_GT(tile_bytes[2e9], 256 * kKiB);
  EXPECT_EQ(tile_bytes[0.0], tile_bytes[2e9]) << "not measured: as fast flash";
  EXPECT_GT(resident_bytes[40e6], resident_bytes[2e9] + kMiB);
}

TEST(Planner, FastFlashGetsALargerRingAsFarAsTheBudgetAllows) {
  const auto model = MakeFakeModel(SmolShape());
  const auto ring_tiles = [&](double flash, uint64_t budget) {
    PlanOptions options;
    options.budget_bytes = budget;
    options.speeds.flash_bytes_per_second = flash;
    options.tile_bytes = 512 * kKiB;
    const Result<Plan> plan = MakePlan(*model, options);
    EXPECT_TRUE(plan.ok()) << plan.status().ToString();
    if (!plan.ok()) return 0.0;
    EXPECT_GT(plan->pass_bytes, 0U);
    EXPECT_TRUE(plan->ring_bytes <= budget / 3 || plan->ring_bytes < 5 * plan->tile_bytes);
    return static_cast<double>(plan->ring_bytes) / static_cast<double>(plan->tile_bytes);
  };
  EXPECT_NEAR(ring_tiles(40e6, 15 * kMiB), 4, 0.2);
  EXPECT_NEAR(ring_tiles(1e9, 54 * kMiB), 6, 0.2);
  EXPECT_NEAR(ring_tiles(2e9, 54 * kMiB), 8, 0.2);
  EXPECT_NEAR(ring_tiles(5e9, 54 * kMiB), 12, 0.2);
  EXPECT_NEAR(ring_tiles(0, 54 * kMiB), 12, 0.2) << "not measured: as fast flash";
  EXPECT_NEAR(ring_tiles(2e9, 85 * kMiB), 6, 0.2) << "less is read in a pass";
  EXPECT_NEAR(ring_tiles(2e9, 105 * kMiB), 4, 0.2) << "next to nothing is";
  EXPECT_NEAR(ring_tiles(3e9, 15 * kMiB), 10, 0.2) << "a third of the budget";
  EXPECT_NEAR(ring_tiles(3e9, 7 * kMiB), 4, 0.2) << "a third of the budget";
}

TEST(Planner, BesideOthersTokensAPromptHasTheRowsThatTakeThemToAQuarterOfTheirSpeed) {
  const auto model = MakeFakeModel(SmolShape());
  PlanOptions options;
  options.budget_bytes = 15 * kMiB;
  SetRows(0, 4, 0, &options);
  const auto plan_at = [&](double flash, double processor, double row) {
    options.speeds.flash_bytes_per_second = flash;
    options.speeds.processor_bytes_per_second = processor;
    options.speeds.processor_row_bytes_per_second = row;
    const Result<Plan> plan = MakePlan(*model, options);
    EXPECT_TRUE(plan.ok()) << plan.status().ToString();
    return plan.ok() ? *plan : Plan{};
  };
  EXPECT_EQ(plan_at(40e6, 0, 0).shared_prompt_rows, 256U) << "not measured";
  EXPECT_EQ(plan_at(40e6, 20e9, 80e9).shared_prompt_rows, 256U) << "reading is all that counts";
  // A card that reads for longer than a slow processor computes, and one that does not.
  for (const double flash : {20e6, 400e6}) {
    const Plan plan = plan_at(flash, 60e6, 100e6);
    uint64_t logits_bytes = 0;
    for (const Stage& stage : plan.stages) {
      if (stage.kind == StageKind::kLogits) logits_bytes += stage.weight_bytes;
    }
    ASSERT_GT(logits_bytes, 0U);
    const double read = static_cast<double>(plan.pass_bytes) / flash;
    const double one = static_cast<double>(plan.model_bytes) / 60e6;
    const double row = static_cast<double>(plan.model_bytes - logits_bytes) / 100e6;
    const double alone = std::max(read, one);
    EXPECT_LE(one + plan.shared_prompt_rows * row, 4 * alone) << flash;
    EXPECT_GT(one + (plan.shared_prompt_rows + 1) * row, 4 * alone) << flash;
  }
  EXPECT_EQ(plan_at(400e6, 60e6, 1e6).shared_prompt_rows, 1U) << "never none";
}

TEST(Planner, WithoutACeilingBuffersAreSmallForTheyCannotSaveReading) {
  const auto model = MakeFakeModel(SmolShape());
  const auto plan_under = [&](uint64_t budget) {
    PlanOptions options;
    options.budget_bytes = budget;
    options.speeds.flash_bytes_per_second = 3e9;
    SetRows(0, 4, 8, &options);
    Result<Plan> plan = MakePlan(*model, options);
    EXPECT_TRUE(plan.ok()) << plan.status().ToString();
    return plan.ok() ? std::move(plan).value() : Plan{};
  };
  const Plan none = plan_under(UINT64_MAX);
  EXPECT_EQ(none.max_rows, kPromptChunkWithoutCeiling);
  EXPECT_LE(none.wide_end, 3 * kMiB / 2);
  EXPECT_EQ(plan_under(54 * kMiB).max_rows, kLargestPromptChunk);
}

class PlanSweep : public testing::TestWithParam<std::tuple<bool, Granularity, uint64_t>> {
 protected:
  PlanSweep() {
    const auto [gated, granularity, budget] = GetParam();
    FakeShape shape = gated ? SmolShape() : FakeShape{};
    shape.tied = gated;
    model_ = MakeFakeModel(shape);
    plan_ = PlanOf(*model_, granularity, budget);
  }
  std::unique_ptr<Model> model_;
  Plan plan_;
};

TEST_P(PlanSweep, EveryWeightByteIsReadExactlyOncePerPass) {
  std::map<const TensorInfo*, std::vector<std::pair<uint64_t, uint64_t>>> spans;
  for (const Tile& tile : plan_.tiles) {
    EXPECT_GT(tile.outputs, 0U);
    spans[tile.tensor].emplace_back(tile.offset, tile.offset + tile.bytes);
  }
  std::set<const TensorInfo*> by_row = {model_->position_embedding};
  if (model_->output.tensor != model_->token_embedding) by_row.insert(model_->token_embedding);
  for (const TensorInfo& tensor : model_->gguf.tensors) {
    if (by_row.contains(&tensor)) {
      EXPECT_FALSE(spans.contains(&tensor)) << tensor.name;
      continue;
    }
    auto& parts = spans[&tensor];
    std::sort(parts.begin(), parts.end());
    uint64_t at = tensor.offset;
    for (const auto& [begin, end] : parts) {
      EXPECT_EQ(begin, at) << tensor.name;
      at = end;
    }
    EXPECT_EQ(at, tensor.offset + tensor.bytes) << tensor.name;
  }
}

TEST_P(PlanSweep, NothingIsPlacedOverAnythingElseAndAllWithinThePeak) {
  EXPECT_LE(plan_.peak_bytes, std::get<2>(GetParam()));
  for (const Group& group : plan_.groups) {
    std::vector<std::pair<uint64_t, uint64_t>> spans;
    if (group.work.used) {
      spans.emplace_back(group.work.offset, group.work.offset + group.work.bytes);
    }
    for (const Placement& value : group.values) {
      if (!value.used) continue;
      EXPECT_EQ(value.offset % 64, 0U);
      spans.emplace_back(value.offset, value.offset + value.bytes);
    }
    std::sort(spans.begin(), spans.end());
    uint64_t end = plan_.ring_bytes;
    for (const auto& [begin, span_end] : spans) {
      EXPECT_GE(begin, end);
      end = span_end;
    }
    EXPECT_LE(end, plan_.resident_offset);
  }
  uint64_t end = plan_.resident_offset;
  std::vector<std::pair<uint64_t, uint64_t>> resident;
  for (const Tile& tile : plan_.tiles) {
    EXPECT_LE(ReadBufferBytes(tile.offset, tile.bytes), plan_.span_bytes / 2);
    if (tile.resident()) resident.emplace_back(tile.resident_offset, tile.bytes);
  }
  std::sort(resident.begin(), resident.end());
  for (const auto& [offset, bytes] : resident) {
    EXPECT_GE(offset, end);
    end = offset + bytes;
  }
  EXPECT_LE(end, plan_.peak_bytes);
}

// Walks the groups with a store of the parts that have been written, as the runner does.
TEST_P(PlanSweep, EveryInputOfAGroupWasWrittenByAnEarlierOne) {
  std::set<std::pair<Value, uint32_t>> store;
  for (const Group& group : plan_.groups) {
    std::set<std::pair<Value, uint32_t>> ram;
    const auto parts = [&](const Stage& stage, Value value) {
      return PartsOf(*model_, stage, value);
    };
    for (size_t v = 0; v < kArenaValues; ++v) {
      const auto value = static_cast<Value>(v);
      if ((group.inputs & Bit(value)) == 0) continue;
      for (uint32_t s = group.stage_begin; s < group.stage_end; ++s) {
        if ((AccessOf(plan_.stages[s]).reads & Bit(value)) == 0) continue;
        const PartRange range = parts(plan_.stages[s], value);
        for (uint32_t part = range.begin; part < range.end; ++part) {
          if (store.contains({value, part})) ram.insert({value, part});
        }
        break;
      }
    }
    for (uint32_t s = group.stage_begin; s < group.stage_end; ++s) {
      const Stage& stage = plan_.stages[s];
      const StageAccess access = AccessOf(stage);
      for (size_t v = 0; v < kArenaValues; ++v) {
        const auto value = static_cast<Value>(v);
        const PartRange range = parts(stage, value);
        if ((access.reads & Bit(value)) != 0) {
          for (uint32_t part = range.begin; part < range.end; ++part) {
            if (value == Value::kKv && part >= KvHeadBegin(*model_, stage))
              continue;  // it makes these
            EXPECT_TRUE(ram.contains({value, part}))
                << StageKindName(stage.kind) << " of layer " << stage.layer << " reads "
                << ValueName(value) << " part " << part;
          }
        }
        if ((access.writes & Bit(value)) != 0) {
          for (uint32_t part = range.begin; part < range.end; ++part) ram.insert({value, part});
        }
      }
    }
    for (size_t v = 0; v < kArenaValues; ++v) {
      const auto value = static_cast<Value>(v);
      if ((group.outputs & Bit(value)) == 0) continue;
      for (const auto& part : ram) {
        if (part.first == value) store.insert(part);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Budgets, PlanSweep,
    testing::Combine(testing::Bool(),
                     testing::Values(Granularity::kHead, Granularity::kOp, Granularity::kAuto),
                     testing::Values(2 * kMiB, 4 * kMiB, 7 * kMiB, 24 * kMiB, 64 * kMiB, kGiB)));

TEST(Planner, ABudgetThatIsTooSmallIsRefusedWithTheOneThatWouldDo) {
  const auto model = MakeFakeModel({});
  PlanOptions options;
  options.budget_bytes = 16 * kKiB;
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(plan.status().message(), testing::HasSubstr("the buffers need at least"));
  EXPECT_THAT(plan.status().message(), testing::HasSubstr("the budget is 16.0 KiB"));
}

TEST(Planner, ASmallBudgetTakesSmallerTilesThenFewerRows) {
  const auto model = MakeFakeModel(SmolShape());
  const Plan wide = PlanOf(*model, Granularity::kOp, kGiB);
  const Plan narrow = PlanOf(*model, Granularity::kOp, 512 * kKiB);
  EXPECT_LT(narrow.tile_bytes, wide.tile_bytes);
  EXPECT_LT(narrow.max_rows, wide.max_rows);
  EXPECT_GE(narrow.max_rows, 1U);
}

TEST(Planner, TheResidentSetIsSpreadEvenlyThroughThePass) {
  const auto model = MakeFakeModel(SmolShape());
  const Plan plan = PlanOf(*model, Granularity::kAuto, 64 * kMiB);
  const double share =
      static_cast<double>(plan.resident_bytes) / static_cast<double>(plan.model_bytes);
  EXPECT_GT(share, 0.3);
  uint64_t seen = 0;
  uint64_t resident = 0;
  for (const Tile& tile : plan.tiles) {
    seen += tile.bytes;
    if (tile.resident()) resident += tile.bytes;
    // Never further from the average than three tiles, or the small ones that all stay.
    EXPECT_NEAR(
        static_cast<double>(resident), share * static_cast<double>(seen),
        3.0 * static_cast<double>(plan.tile_bytes) + 0.02 * static_cast<double>(plan.model_bytes));
  }
}

// A prompt's rows cost a pass that generates nothing.
TEST(Planner, APromptsValuesLieOverTheResidentSet) {
  const auto model = MakeFakeModel(SmolShape());
  for (const Granularity granularity : {Granularity::kHead, Granularity::kOp, Granularity::kAuto}) {
    for (const uint64_t budget : {8 * kMiB, 14 * kMiB, 54 * kMiB}) {
      PlanOptions options;
      options.granularity = granularity;
      options.budget_bytes = budget;
      options.max_rows = options.step_rows = 12;
      options.max_logit_rows = 12;
      const Result<Plan> few = MakePlan(*model, options);
      options.max_rows = 256;
      const Result<Plan> many = MakePlan(*model, options);
      ASSERT_TRUE(few.ok() && many.ok());
      EXPECT_EQ(many->max_rows, 256U) << budget;
      EXPECT_EQ(many->step_rows, 12U);
      EXPECT_EQ(many->pass_bytes, few->pass_bytes);
      EXPECT_EQ(many->groups.size(), few->groups.size());
      EXPECT_EQ(many->step_end, few->step_end);
      EXPECT_GT(many->wide_end, few->wide_end);
      EXPECT_LE(many->peak_bytes, budget);
      EXPECT_EQ(ValuesEnd(*model, *many, 12), ValuesEnd(*model, *few, 12));
      EXPECT_LE(ValuesEnd(*model, *many, 256), many->wide_end);
      EXPECT_LT(ValuesEnd(*model, *many, 100), ValuesEnd(*model, *many, 200));
    }
  }
}

TEST(Planner, WhereThereIsRoomForAllNothingLiesOverTheResidentSet) {
  const auto model = MakeFakeModel(SmolShape());
  PlanOptions options;
  options.max_rows = 256;
  options.step_rows = 12;
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->pass_bytes, 0U);
  EXPECT_EQ(plan->resident_offset, plan->wide_end);
}

TEST(Planner, APromptsRowsAreFewerBeforeAGroupIsCutForThem) {
  const auto model = MakeFakeModel(SmolShape());
  PlanOptions options;
  options.max_rows = 256;
  options.step_rows = 12;
  options.budget_bytes = 3 * kMiB;
  const Result<Plan> plan = MakePlan(*model, options);
  ASSERT_TRUE(plan.ok());
  EXPECT_LT(plan->max_rows, 256U);
  EXPECT_GT(plan->max_rows, 12U);
  EXPECT_EQ(plan->groups.size(), 1U);
}

TEST(Planner, ThePapersMiniatureNeedsHalfOfThePapersEightMegabytes) {
  FakeShape shape;
  shape.n_layers = 6;
  const auto model = MakeFakeModel(shape);
  const Plan plan = PlanOf(*model, Granularity::kOp, 4'000'000);
  EXPECT_LE(plan.peak_bytes, 4'000'000U);
  EXPECT_GE(plan.max_rows, 32U);
}

}  // namespace
}  // namespace thimble
