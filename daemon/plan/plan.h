// The plan: stages, their grouping, and the place of every buffer in the arena, made once at start
// for a given budget. It is the memory contract: peak_bytes is known before the first weight is
// read. Called by: the runner, admission, `thimble plan`. Memory: about 100 bytes a tile.
//
// The arena:  [ring of streamed tiles][values and work of the running group]
//             [resident tiles][KV][small resident tiles]
//
// It may be larger than the budget by the spare, which can be given up between any two tiles: what
// cannot give way (ring, values, a block for each request's newest keys and values) is planned
// within the budget.
//
// Values and work grow with the rows of a pass. Passes that generate have few rows (step_rows), and
// the resident set begins behind their largest group. A pass of more rows, a prompt's, has its
// values lie over the first resident tiles, which are streamed for as long as that lasts and read
// again into their place afterwards: a prompt of 256 rows costs a generating pass no RAM.
//
// Keys and values of the active requests grow from small_offset downwards, where there is no room
// behind the resident tiles over these: a byte of either saves the reading of a byte in every pass,
// and keys and values come in smaller pieces. Small tiles (norms, biases) do not give way to them:
// each would cost a read of its own, and the weights on both of its sides another.
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

// Of x86, and of ARM with pages of 4 KiB; an arena of at least one begins at one.
inline constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

enum class Granularity : uint8_t { kHead, kOp, kAuto };
std::string_view GranularityName(Granularity granularity);  // "head", "op", "auto"
Result<Granularity> ParseGranularity(std::string_view text);

// Of this machine, as measured at start with the model itself (daemon/run/speed_probe.h); 0: not
// known.
struct Speeds {
  double flash_bytes_per_second = 0;  // of reading the model, several reads under way
  // Of the model's own type of weights, times one row, from the processor's caches: RAM may be
  // slower.
  double processor_bytes_per_second = 0;
  // Times eight rows, and as many times the weights' bytes: what each of many rows costs.
  double processor_row_bytes_per_second = 0;
};

struct PlanOptions {
  uint64_t budget_bytes = UINT64_MAX;  // for the arena; UINT64_MAX: no ceiling
  // Beyond it, for what can give way. Of a plan: what of it is planned for, 0 where there is no
  // ceiling.
  uint64_t spare_bytes = 0;
  Granularity granularity = Granularity::kAuto;
  uint32_t max_rows = 64;       // rows of a pass; fewer are planned where the budget asks for it
  uint32_t step_rows = 0;       // rows that leave the resident set alone; 0: max_rows
  uint32_t max_logit_rows = 4;  // of these, how many may want logits
  Speeds speeds;
  uint64_t tile_bytes = 0;  // 0: chosen from the budget, 512 KiB at most
  // Keys and values in RAM (storage/kv_pool.h), as much as there is room for: the bytes of a block
  // of 32 tokens in all layers, and how many of them requests may have at once. 0: none.
  uint64_t kv_slot_bytes = 0;
  uint64_t kv_slots = 0;
  // Of them, what a pass needs where the rest is read from flash: the newest block of each request.
  uint64_t kv_least_slots = 0;
};

// More prompt rows of a pass hardly save readings of the weights.
inline constexpr uint32_t kLargestPromptChunk = 256;
// Without a ceiling they save none, and are as fast.
inline constexpr uint32_t kPromptChunkWithoutCeiling = 32;
// The rows of a daemon's passes: a row for each of `max_active` requests, draft tokens, and prompts
// in chunks (0: as large as pays with options->budget_bytes), each as the budget allows.
void SetRows(uint32_t prompt_chunk, uint32_t max_active, uint32_t draft_tokens,
             PlanOptions* options);

// Tiles up to this size (norms, biases) cost a read each and next to no RAM: they are made resident
// first.
inline constexpr uint64_t kSmallTile = uint64_t{32} << 10;

// Of a request, where the model's own is not less. A longer one costs disk (the KV cache) and time,
// not RAM; asked for, the model's own is given.
inline constexpr uint32_t kDefaultContextTokens = 2048;
// Of `max_active` requests of `context_tokens` each; `slot_bytes` as KvPool::SlotBytes says.
void SetKv(uint64_t slot_bytes, uint32_t max_active, uint32_t context_tokens, PlanOptions* options);

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
  std::vector<Tile> tiles;    // in the order of a pass
  std::vector<Group> groups;  // placed for step_rows
  uint32_t max_rows = 0;
  uint32_t step_rows = 0;  // at most max_rows
  uint32_t max_logit_rows = 0;
  uint32_t shared_prompt_rows = 0;  // prompt rows of a pass in which other requests' tokens wait
  uint64_t tile_bytes = 0;          // the largest tile
  uint64_t span_bytes = 0;          // the most that one read brings: two of the largest tiles
  uint64_t ring_bytes = 0;          // 4 to 12 of the largest tiles
  uint64_t values_offset = 0;       // behind the ring
  uint64_t step_end = 0;            // behind the largest group's values and work at step_rows
  uint64_t wide_end = 0;            // and at max_rows
  uint64_t resident_offset = 0;  // from step_end on; from wide_end on where there is room for all
  uint64_t resident_end = 0;     // behind those that are placed there
  uint64_t resident_bytes = 0;   // of all tiles that stay
  // kv_bytes from kv_offset to small_offset: whole slots, the first of which may lie over resident
  // tiles, which are streamed while it is in use.
  uint64_t kv_offset = 0;
  uint64_t kv_bytes = 0;
  uint64_t small_offset = 0;  // small tiles from here on; where the arena has no place for them
                              // alone they are among the others
  uint64_t peak_bytes = 0;    // of the arena
  uint64_t model_bytes = 0;   // of all tiles: one pass with nothing resident
  uint64_t pass_bytes = 0;    // of the tiles that are read in every pass

  // Whether a tile may be read more than once. Under a ceiling every one may have to give way;
  // without one the ring is of use once: its RAM is given back then, so that nobody may pin it.
  [[nodiscard]] bool Streams() const { return options.budget_bytes != UINT64_MAX; }
};

// Of the resident tiles, those that may give way: small ones do not.
inline uint64_t MovableBytes(const Plan& plan) { return plan.resident_end - plan.resident_offset; }

// What is before it cannot be given back: step_end, or where weights may be read more than once the
// end of the huge page in which the ring ends, which the kernel may hold as a whole; small pages
// where that one is not within the budget.
uint64_t HeldEnd(const Plan& plan);

// The group of stages [begin, end), with the place of its buffers in a pass of `rows` rows.
Group PlaceGroup(const Model& model, const Plan& plan, uint32_t begin, uint32_t end, uint32_t rows);
// Where the values and work of plan.groups end at most in such a pass.
uint64_t ValuesEnd(const Model& model, const Plan& plan, uint32_t rows);

// RESOURCE_EXHAUSTED, with the smallest budget that would do, where the model does not fit.
Result<Plan> MakePlan(const Model& model, const PlanOptions& options);

}  // namespace thimble
