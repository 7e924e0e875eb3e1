// The plan: stages, their grouping, and the place of every buffer in the arena, made once at start
// for a given budget. It is the memory contract: peak_bytes is known before the first weight is
// read. Called by: the runner, admission, `thimble plan`. Memory: about 100 bytes a tile.
//
// The arena:  [ring of streamed tiles][values and work of the running group][resident tiles]
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"
#include "daemon/plan/stage.h"
#include "daemon/plan/values.h"
#include "storage/base/status.h"

namespace thimble {

enum class Granularity : uint8_t { kHead, kOp, kAuto };
std::string_view GranularityName(Granularity granularity);  // "head", "op", "auto"
Result<Granularity> ParseGranularity(std::string_view text);

struct PlanOptions {
  uint64_t budget_bytes = UINT64_MAX;  // for the arena; UINT64_MAX: no ceiling
  Granularity granularity = Granularity::kAuto;
  uint32_t max_rows = 64;       // rows of a pass; fewer are planned where the budget asks for it
  uint32_t max_logit_rows = 4;  // of these, how many may want logits
  double flash_bytes_per_second = 0;  // as measured; 0: not known
  uint64_t tile_bytes = 0;            // 0: chosen from the budget, 512 KiB at most
};

// A value's place while a group runs, from the beginning of the arena.
struct Placement {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  bool used = false;
};

struct Group {
  uint32_t stage_begin = 0;
  uint32_t stage_end = 0;
  std::array<Placement, kArenaValues> values;  // by Value
  Placement work;
  uint8_t inputs = 0;             // bits of Value: read from the stage store at the beginning
  uint8_t outputs = 0;            // bits of Value: written to it at the end
  uint64_t weight_bytes = 0;      // the most that one of its stages holds: the ring, or less
  uint64_t activation_bytes = 0;  // values and work
  uint64_t kv_bytes = 0;          // a KV block
  [[nodiscard]] uint64_t total_bytes() const { return weight_bytes + activation_bytes + kv_bytes; }
};

struct Plan {
  PlanOptions options;
  std::vector<Stage> stages;
  std::vector<Tile> tiles;  // in the order of a pass
  std::vector<Group> groups;
  uint32_t max_rows = 0;
  uint32_t max_logit_rows = 0;
  uint64_t tile_bytes = 0;       // the largest tile
  uint64_t span_bytes = 0;       // the most that one read brings
  uint64_t ring_bytes = 0;       // four reads: one in use, the others under way
  uint64_t values_offset = 0;    // behind the ring
  uint64_t resident_offset = 0;  // behind the largest group's values and work
  uint64_t resident_bytes = 0;
  uint64_t peak_bytes = 0;   // of the arena
  uint64_t model_bytes = 0;  // of all tiles: one pass with nothing resident
  uint64_t pass_bytes = 0;   // of the tiles that are read in every pass
};

// RESOURCE_EXHAUSTED, with the smallest budget that would do, where the model does not fit.
Result<Plan> MakePlan(const Model& model, const PlanOptions& options);

}  // namespace thimble
