// The plan: stages, their grouping, and the place of every buffer in the arena, made once at start for
// a given budget. It is the memory contract: peak_bytes is known before the first weight is read.
// Called by: the runner, admission, `thimble plan`. Memory: about 100 bytes a tile.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"
#include "daemon/plan/stage.h"
#include "storage/base/status.h"

namespace thimble {

enum class Granularity : uint8_t { kHead, kOp, kAuto };
std::string_view GranularityName(Granularity granularity);  // "head", "op", "auto"
Result<Granularity> ParseGranularity(std::string_view text);

struct PlanOptions {
  uint64_t budget_bytes = UINT64_MAX;  // for the arena; UINT64_MAX: no ceiling
  Granularity granularity = Granularity::kAuto;
  uint32_t max_rows = 64;        // rows of a pass
  uint32_t max_logit_rows = 4;   // of these, how many may want logits
  uint64_t tile_bytes = 0;       // 0: chosen from the budget, 1 MiB at most
};

// A value's place in the arena while a group runs.
struct Placement {
  uint64_t offset = UINT64_MAX;  // UINT64_MAX: not in this group
  uint64_t bytes = 0;
};

struct Stage {
  StageKind kind = StageKind::kEmbed;
  uint32_t layer = 0;
  uint32_t head_begin = 0;  // kQkv, kAttention: query heads
  uint32_t head_end = 0;
  bool last_of_layer = false;     // kQkv: writes the KV cache
  uint32_t tile_begin = 0;        // in Plan::tiles
  uint32_t tile_end = 0;
  uint64_t weight_bytes = 0;      // of its tiles
  uint64_t work_bytes = 0;        // kWork
  uint64_t kv_bytes = 0;          // the KV block buffer
  uint32_t group = 0;
};

struct PlanTile {
  Tile tile;
  Operand operand = Operand::kWeight;
  uint64_t resident_offset = UINT64_MAX;  // in the arena; UINT64_MAX: streamed through the ring
};

struct Group {
  uint32_t stage_begin = 0;
  uint32_t stage_end = 0;
  std::array<Placement, kPlanValues> values;
  uint8_t inputs = 0;   // bit per Value: read from the stage store at the beginning
  uint8_t outputs = 0;  // bit per Value: written to it at the end
  uint64_t weight_bytes = 0;      // the most that one of its stages has in RAM: two ring slots at most
  uint64_t activation_bytes = 0;  // values and work
  uint64_t kv_bytes = 0;
  [[nodiscard]] uint64_t total_bytes() const {
    return weight_bytes + activation_bytes + kv_bytes;
  }
};

struct Plan {
  PlanOptions options;
  std::vector<Stage> stages;
  std::vector<PlanTile> tiles;  // in the order of a pass
  std::vector<Group> groups;
  uint32_t max_rows = 0;
  uint32_t max_logit_rows = 0;
  uint64_t tile_bytes = 0;       // the largest tile
  uint64_t slot_bytes = 0;       // of one of the two ring slots, alignment included
  uint64_t ring_offset = 0;      // of the two slots in the arena; the values follow
  uint64_t values_offset = 0;
  uint64_t resident_offset = 0;  // resident tiles, after the largest group's values
  uint64_t resident_bytes = 0;
  uint64_t peak_bytes = 0;       // of the arena: ring + largest group + resident set
  uint64_t model_bytes = 0;      // of all tiles: what a pass with logits reads when nothing is resident
  uint64_t pass_bytes = 0;       // what it reads with this resident set
};

// RESOURCE_EXHAUSTED, with the smallest budget that would do, where the model does not fit.
Result<Plan> MakePlan(const Model& model, const PlanOptions& options);

}  // namespace thimble
