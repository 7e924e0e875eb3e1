#include <algorithm>
#include <string>

#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"
#include "storage/weight_reader.h"

namespace thimble {
namespace {

constexpr uint64_t kValueAlignment = 64;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kLargestTile = 512 * kKiB;  // past this, flash reads get no faster
constexpr uint64_t kSmallestOnSlowFlash = 128 * kKiB;
// What the flash brings in this time is a tile: the ring of four then lasts for 2 ms of other work,
// a journal's commit. Slow flash needs less, and resident tiles make better use of the rest.
constexpr double kTileSeconds = 0.0005;
constexpr uint64_t kSmallestTile = 16 * kKiB;  // below this, flash reads are all latency
// The ring has room for one tile in use and three being read: with one alone being read the flash
// would be idle from its completion until the next one is asked for, a tenth of the time.
constexpr uint64_t kRingTiles = 4;
// Tiles up to this size cost a read each and next to no RAM: they are made resident first.
constexpr uint64_t kSmallTile = 32 * kKiB;

struct Extent {
  uint64_t values = 0;  // values and work
  uint64_t work = 0;
};

// Places the values that the stages of `group` touch, one behind the other, and their work buffer.
void PlaceGroup(const Model& model, const Plan& plan, Group* group) {
  uint8_t touched = 0;
  uint64_t work_bytes = 0;
  for (uint32_t s = group->stage_begin; s < group->stage_end; ++s) {
    const Stage& stage = plan.stages[s];
    const StageAccess access = AccessOf(stage);
    touched |= access.reads | access.writes;
    const WorkLayout work =
        LayoutWork(model, stage, plan.tiles, plan.max_rows, plan.max_logit_rows);
    work_bytes = std::max(work_bytes, work.bytes);
    group->kv_bytes = std::max(group->kv_bytes, work.kv_block_bytes);
    group->weight_bytes =
        std::max(group->weight_bytes, std::min(stage.weight_bytes, plan.ring_bytes));
  }
  uint64_t offset = plan.values_offset;
  // The work buffer is first: direct reads of embedding rows need its page alignment.
  group->work = {offset, work_bytes, work_bytes > 0};
  offset += AlignUp(work_bytes, kValueAlignment);
  for (size_t v = 0; v < kArenaValues; ++v) {
    const auto value = static_cast<Value>(v);
    if ((touched & Bit(value)) == 0) continue;
    uint64_t bytes = 0;
    for (uint32_t s = group->stage_begin; s < group->stage_end; ++s) {
      const Stage& stage = plan.stages[s];
      const StageAccess access = AccessOf(stage);
      if (((access.reads | access.writes) & Bit(value)) == 0) continue;
      const PartRange parts = PartsOf(model, stage, value);
      bytes = std::max(bytes, (parts.end - parts.begin) *
                                  PartBytes(model, value, FormsAfter(model, stage), plan.max_rows));
    }
    group->values[v] = {offset, bytes, true};
    offset += AlignUp(bytes, kValueAlignment);
  }
  group->activation_bytes = offset - plan.values_offset - group->kv_bytes;
}

// True where a stage behind `stage_end` reads what `value` is at that point.
bool NeededAfter(const Plan& plan, uint32_t stage_end, Value value) {
  for (uint32_t s = stage_end; s < plan.stages.size(); ++s) {
    const StageAccess access = AccessOf(plan.stages[s]);
    if ((access.reads & Bit(value)) != 0) return true;
    // Written from its first part on without having been read: what was there is gone.
    if ((access.writes & Bit(value)) != 0 && plan.stages[s].head_begin == 0) return false;
  }
  return false;
}

void FindInputsAndOutputs(const Plan& plan, Group* group) {
  uint8_t written = 0;
  for (uint32_t s = group->stage_begin; s < group->stage_end; ++s) {
    const StageAccess access = AccessOf(plan.stages[s]);
    group->inputs |= access.reads & ~written;
    written |= access.writes;
  }
  for (size_t v = 0; v < kArenaValues; ++v) {
    const auto value = static_cast<Value>(v);
    if ((written & Bit(value)) != 0 && NeededAfter(plan, group->stage_end, value)) {
      group->outputs |= Bit(value);
    }
  }
}

Group MakeGroup(const Model& model, const Plan& plan, uint32_t begin, uint32_t end) {
  Group group;
  group.stage_begin = begin;
  group.stage_end = end;
  PlaceGroup(model, plan, &group);
  FindInputsAndOutputs(plan, &group);
  return group;
}

// Bytes of the arena that `group` takes, weights aside.
uint64_t ValuesBytes(const Group& group) { return group.activation_bytes + group.kv_bytes; }

void MakeGroups(const Model& model, Plan* plan) {
  const auto n_stages = static_cast<uint32_t>(plan->stages.size());
  const uint64_t limit = plan->options.budget_bytes < plan->values_offset
                             ? 0
                             : plan->options.budget_bytes - plan->values_offset;
  uint32_t begin = 0;
  while (begin < n_stages) {
    Group group = MakeGroup(model, *plan, begin, begin + 1);
    if (plan->options.granularity == Granularity::kAuto) {
      // A group's values only grow with its end, so the largest end that fits is found by
      // bisection.
      uint32_t fits = begin + 1;
      uint32_t fails = n_stages + 1;
      while (fails - fits > 1) {
        const uint32_t middle =
            fits == begin + 1 && fails == n_stages + 1 ? n_stages : fits + (fails - fits) / 2;
        Group wider = MakeGroup(model, *plan, begin, middle);
        if (ValuesBytes(wider) <= limit) {
          fits = middle;
          group = wider;
        } else {
          fails = middle;
        }
      }
    }
    for (uint32_t s = begin; s < group.stage_end; ++s) {
      plan->stages[s].group = static_cast<uint32_t>(plan->groups.size());
    }
    begin = group.stage_end;
    plan->groups.push_back(group);
  }
}

// Gives what the budget leaves to tiles that stay: the small ones, then the others spread evenly
// through the pass, so that the reading of one that is streamed overlaps with the use of ones that
// stay.
void ChooseResident(Plan* plan) {
  const uint64_t used = plan->resident_offset;
  uint64_t left = plan->options.budget_bytes - used;
  const auto place = [&](Tile& tile) {
    tile.resident_offset = plan->resident_offset + plan->resident_bytes;
    const uint64_t bytes = AlignUp(tile.bytes, kValueAlignment);
    plan->resident_bytes += bytes;
    left -= bytes;
  };
  uint64_t large_bytes = 0;
  for (Tile& tile : plan->tiles) {
    const uint64_t bytes = AlignUp(tile.bytes, kValueAlignment);
    if (tile.bytes <= kSmallTile && bytes <= left) {
      place(tile);
    } else {
      large_bytes += bytes;
    }
  }
  const uint64_t room = left;
  uint64_t seen = 0;
  uint64_t taken = 0;
  for (Tile& tile : plan->tiles) {
    if (tile.resident()) continue;
    const uint64_t bytes = AlignUp(tile.bytes, kValueAlignment);
    seen += bytes;
    // taken / seen follows room / large_bytes; long double keeps the product exact enough for any
    // size.
    const auto share = static_cast<uint64_t>(
        static_cast<long double>(seen) *
        std::min(1.0L, static_cast<long double>(room) / static_cast<long double>(large_bytes)));
    if (taken + bytes <= share && bytes <= left) {
      place(tile);
      taken += bytes;
    }
  }
}

Plan TryPlan(const Model& model, const PlanOptions& options, uint64_t tile_bytes, uint32_t rows) {
  Plan plan;
  plan.options = options;
  plan.max_rows = rows;
  plan.max_logit_rows = std::min(options.max_logit_rows, rows);
  BuildStages(model, options.granularity == Granularity::kHead, tile_bytes, &plan.stages,
              &plan.tiles);
  for (const Tile& tile : plan.tiles) {
    plan.tile_bytes = std::max(plan.tile_bytes, tile.bytes);
    plan.span_bytes = std::max(plan.span_bytes, ReadBufferBytes(tile.offset, tile.bytes));
    plan.model_bytes += tile.bytes;
  }
  plan.ring_bytes = kRingTiles * plan.span_bytes;
  plan.values_offset = plan.ring_bytes;
  MakeGroups(model, &plan);
  uint64_t values_bytes = 0;
  for (const Group& group : plan.groups) values_bytes = std::max(values_bytes, ValuesBytes(group));
  plan.resident_offset = plan.values_offset + AlignUp(values_bytes, kPage);
  plan.peak_bytes = plan.resident_offset;
  return plan;
}

}  // namespace

std::string_view GranularityName(Granularity granularity) {
  switch (granularity) {
    case Granularity::kHead:
      return "head";
    case Granularity::kOp:
      return "op";
    case Granularity::kAuto:
      break;
  }
  return "auto";
}

Result<Granularity> ParseGranularity(std::string_view text) {
  for (const Granularity g : {Granularity::kHead, Granularity::kOp, Granularity::kAuto}) {
    if (text == GranularityName(g)) return g;
  }
  return InvalidArgumentError("granularity \"" + std::string(text) +
                              "\": expected head, op or auto");
}

Result<Plan> MakePlan(const Model& model, const PlanOptions& options) {
  if (options.max_rows == 0 || options.max_logit_rows == 0) {
    return InvalidArgumentError("plan: a pass needs at least 1 row, and 1 that wants logits");
  }
  uint64_t first_tile = options.tile_bytes;
  if (first_tile == 0) {
    first_tile = kLargestTile;
    while (first_tile > 4 * kSmallestTile && first_tile > options.budget_bytes / 32) {
      first_tile /= 2;
    }
    if (options.flash_bytes_per_second > 0) {
      const double most = options.flash_bytes_per_second * kTileSeconds;
      while (first_tile > kSmallestOnSlowFlash && static_cast<double>(first_tile) > most) {
        first_tile /= 2;
      }
    }
  }
  uint64_t smallest = UINT64_MAX;
  for (uint32_t rows = options.max_rows; rows > 0; rows /= 2) {
    for (uint64_t tile = first_tile; tile >= std::min(kSmallestTile, first_tile); tile /= 2) {
      Plan plan = TryPlan(model, options, tile, rows);
      smallest = std::min(smallest, plan.peak_bytes);
      if (plan.peak_bytes > options.budget_bytes) continue;
      if (options.budget_bytes == UINT64_MAX) plan.options.budget_bytes = UINT64_MAX / 2;
      ChooseResident(&plan);
      plan.options.budget_bytes = options.budget_bytes;
      plan.peak_bytes += plan.resident_bytes;
      for (const Tile& tile_of_pass : plan.tiles) {
        if (!tile_of_pass.resident()) plan.pass_bytes += tile_of_pass.bytes;
      }
      return plan;
    }
  }
  return ResourceExhaustedError("plan " + model.name + ": the buffers need at least " +
                                FormatBytes(smallest) + ", the budget is " +
                                FormatBytes(options.budget_bytes));
}

}  // namespace thimble
