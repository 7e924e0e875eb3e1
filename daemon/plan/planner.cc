#include <algorithm>
#include <cmath>
#include <string>

#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"
#include "storage/kv_block_index.h"
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
constexpr uint64_t kFairTile = 64 * kKiB;      // below this, flash reads are much latency
constexpr uint64_t kSmallestTile = 16 * kKiB;  // below this, flash reads are all latency
// The ring has room for two tiles in use and two being read.
constexpr uint64_t kFewestRingTiles = 4;
// Each time the flash is given reads costs this beside their bytes: the ring's part under way comes
// at once and is told of at once (docs/performance.md, "This disk"). A larger ring is paid for with
// as many bytes of resident tiles, which are read in every pass then.
constexpr double kNoticeSeconds = 60e-6;
constexpr double kPartUnderWay = 0.75;
constexpr uint64_t kMostRingTiles = 12;
constexpr uint64_t kRingPartOfBudget = 3;
constexpr uint64_t kSpanTiles = 2;  // the most that one read brings
// The most that they may have of what the values leave, as a place of their own.
constexpr uint64_t kSmallPartOfRest = 4;
constexpr uint64_t kNoBudget = UINT64_MAX / 2;
// Of a pass with rows of a prompt: how many times as long it may take as without them, where other
// requests' tokens wait for it.
constexpr double kMostSlowdown = 4;
// Without a ceiling all tiles stay, and the ring is of use once only.
constexpr uint64_t kTileWithoutCeiling = 128 * kKiB;

// Of tiles that take `tile_bytes` at most as they are read, where a pass reads `pass_bytes` beside
// the ring. R bytes of ring cost R / rate, and a notice for every kPartUnderWay * R of pass_bytes:
// together least where both are the same (Harris 1913, the economic order quantity), as far as the
// tiles and a part of the budget go. Flash that was not measured counts as fast.
uint64_t RingTiles(const PlanOptions& options, uint64_t tile_bytes, uint64_t pass_bytes) {
  const double rate = options.speeds.flash_bytes_per_second;
  const double best =
      std::sqrt(rate * kNoticeSeconds * static_cast<double>(pass_bytes) / kPartUnderWay);
  const uint64_t half_step = kSpanTiles * tile_bytes / 2;
  uint64_t tiles = kFewestRingTiles;
  while (tiles < kMostRingTiles &&
         (rate <= 0 || static_cast<double>(tiles * tile_bytes + half_step) < best) &&
         (tiles + kSpanTiles) * tile_bytes <= options.budget_bytes / kRingPartOfBudget) {
    tiles += kSpanTiles;
  }
  return tiles;
}

// A pass takes the longer of reading and computing. A prompt's rows cost computing: all weights but
// those of the logits, each, at the speed of many rows. What was not measured bounds nothing.
uint32_t SharedPromptRows(const Plan& plan) {
  const Speeds& speeds = plan.options.speeds;
  const bool known = speeds.flash_bytes_per_second > 0 && speeds.processor_bytes_per_second > 0 &&
                     speeds.processor_row_bytes_per_second > 0;
  if (!known) return plan.max_rows;
  uint64_t row_bytes = 0;
  for (const Stage& stage : plan.stages) {
    if (stage.kind != StageKind::kLogits) row_bytes += stage.weight_bytes;
  }
  const double read = static_cast<double>(plan.pass_bytes) / speeds.flash_bytes_per_second;
  const double one = static_cast<double>(plan.model_bytes) / speeds.processor_bytes_per_second;
  const double row = static_cast<double>(row_bytes) / speeds.processor_row_bytes_per_second;
  const double rows = (kMostSlowdown * std::max(read, one) - one) / row;
  return static_cast<uint32_t>(std::clamp<double>(rows, 1, plan.max_rows));
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
    Group group = PlaceGroup(model, *plan, begin, begin + 1, plan->max_rows);
    if (plan->options.granularity == Granularity::kAuto) {
      // A group's values only grow with its end, so the largest end that fits is found by
      // bisection.
      uint32_t fits = begin + 1;
      uint32_t fails = n_stages + 1;
      while (fails - fits > 1) {
        const uint32_t middle =
            fits == begin + 1 && fails == n_stages + 1 ? n_stages : fits + (fails - fits) / 2;
        Group wider = PlaceGroup(model, *plan, begin, middle, plan->max_rows);
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
    plan->groups.push_back(
        PlaceGroup(model, *plan, group.stage_begin, group.stage_end, plan->step_rows));
  }
}

// A read costs the processor 20 us whatever its size, so the smaller a tile the better it is kept:
// what is small, then what is at most half of the largest, then the rest.
size_t SizeClass(const Plan& plan, const Tile& tile) {
  if (tile.bytes <= kSmallTile) return 0;
  return tile.bytes <= plan.tile_bytes / 2 ? 1 : 2;
}
constexpr size_t kSizeClasses = 3;

// Of all tiles of the class, as they are placed.
uint64_t ClassBytes(const Plan& plan, size_t size_class) {
  uint64_t bytes = 0;
  for (const Tile& tile : plan.tiles) {
    if (SizeClass(plan, tile) == size_class) bytes += AlignUp(tile.bytes, kValueAlignment);
  }
  return bytes;
}

// Where the arena may end.
uint64_t ArenaEnd(const PlanOptions& options) {
  return AlignDown(options.budget_bytes, kPage) + AlignDown(options.spare_bytes, kPage);
}

// Of the place that small tiles are to have for themselves, whole pages; 0: none. It is of no use
// where nothing bounds the arena. They do not give way: it is within the budget.
uint64_t SmallPlaceBytes(const Plan& plan) {
  if (plan.options.budget_bytes >= kNoBudget) return 0;
  const uint64_t bytes = ClassBytes(plan, 0);
  const uint64_t rest = AlignDown(plan.options.budget_bytes, kPage) - plan.step_end;
  return bytes > rest / kSmallPartOfRest ? 0 : AlignUp(bytes, kPage);
}

// i's bits in reverse: 0, 1/2, 1/4, 3/4, ... of the range (van der Corput).
uint32_t Spread(uint32_t i) {
  uint32_t reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= ((i >> bit) & 1U) << (31 - bit);
  return reversed;
}

// Places the chosen tiles one behind the other. What lies over the set for a while takes its
// beginning (a prompt's values) or its end (keys and values): each part of it is spread through the
// pass. Where nothing does, in the order of the pass, in which the processor fetches ahead:
// SmolLM2-135M's shape makes 130 to 141 tokens/s where it made 115 to 120 (AMD Zen 3).
void PlaceResident(const std::vector<bool>& chosen, Plan* plan) {
  std::vector<size_t> tiles;
  for (size_t t = 0; t < plan->tiles.size(); ++t) {
    if (chosen[t]) tiles.push_back(t);
  }
  std::vector<size_t> order(tiles.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (plan->options.budget_bytes < kNoBudget) {
    std::ranges::sort(order, {}, [](size_t i) { return Spread(static_cast<uint32_t>(i)); });
  }
  plan->resident_end = plan->resident_offset;
  for (const size_t i : order) {
    Tile& tile = plan->tiles[tiles[i]];
    tile.resident_offset = plan->resident_end;
    plan->resident_end += AlignUp(tile.bytes, kValueAlignment);
  }
}

// Keys and values: up to `end`, behind the resident tiles as far as there is room, and over them.
void PlaceKv(uint64_t end, Plan* plan) {
  const PlanOptions& options = plan->options;
  uint64_t wanted = 0;
  if (!CheckedMul(options.kv_slot_bytes, options.kv_slots, &wanted)) wanted = UINT64_MAX;
  const uint64_t begin = std::max(plan->resident_end, std::min(plan->wide_end, end));
  plan->small_offset = begin + std::min(wanted, end - begin);
  plan->kv_offset = plan->small_offset;
  if (wanted == 0) return;
  const uint64_t slots =
      std::min(options.kv_slots, (plan->small_offset - plan->step_end) / options.kv_slot_bytes);
  if (slots == 0) plan->small_offset = plan->kv_offset = begin;
  plan->kv_bytes = slots * options.kv_slot_bytes;
  plan->kv_offset -= plan->kv_bytes;
}

// Small tiles, behind everything.
void PlaceSmall(Plan* plan) {
  uint64_t offset = plan->small_offset;
  for (Tile& tile : plan->tiles) {
    if (SizeClass(*plan, tile) != 0) continue;
    tile.resident_offset = offset;
    offset += AlignUp(tile.bytes, kValueAlignment);
  }
  plan->resident_bytes += offset - plan->small_offset;
  plan->peak_bytes = std::max(plan->peak_bytes, offset);
}

// Gives what the budget leaves to tiles that stay, one class of sizes after the other. A class that
// does not fit as a whole is spread evenly through the pass, so that the reading of a tile that is
// streamed overlaps with the use of ones that stay.
void ChooseResident(Plan* plan) {
  const uint64_t small_bytes = SmallPlaceBytes(*plan);
  const uint64_t end = ArenaEnd(plan->options) - small_bytes;
  uint64_t left = end - plan->step_end;
  std::vector<bool> chosen(plan->tiles.size());
  for (size_t size_class = small_bytes > 0 ? 1 : 0; size_class < kSizeClasses; ++size_class) {
    const uint64_t class_bytes = ClassBytes(*plan, size_class);
    if (class_bytes == 0) continue;
    const long double share =
        std::min(1.0L, static_cast<long double>(left) / static_cast<long double>(class_bytes));
    uint64_t seen = 0;
    uint64_t taken = 0;
    for (size_t t = 0; t < plan->tiles.size(); ++t) {
      if (SizeClass(*plan, plan->tiles[t]) != size_class) continue;
      const uint64_t bytes = AlignUp(plan->tiles[t].bytes, kValueAlignment);
      seen += bytes;
      // taken / seen follows the share; long double keeps the product exact enough for any size.
      if (taken + bytes > static_cast<uint64_t>(static_cast<long double>(seen) * share) ||
          bytes > left) {
        continue;
      }
      chosen[t] = true;
      plan->resident_bytes += bytes;
      left -= bytes;
      taken += bytes;
    }
  }
  // With room enough no value ever lies over them.
  plan->resident_offset = std::max(
      plan->step_end, std::min(plan->wide_end, AlignDown(end - plan->resident_bytes, kPage)));
  PlaceResident(chosen, plan);
  PlaceKv(end, plan);
  plan->peak_bytes = std::max(plan->wide_end, plan->small_offset);
  if (small_bytes > 0) PlaceSmall(plan);
}

void PlaceBehindRing(const Model& model, uint64_t ring_bytes, Plan* plan) {
  plan->ring_bytes = ring_bytes;
  plan->values_offset = ring_bytes;
  plan->groups.clear();
  MakeGroups(model, plan);
  plan->step_end = AlignUp(ValuesEnd(model, *plan, plan->step_rows), kPage);
  plan->wide_end = AlignUp(ValuesEnd(model, *plan, plan->max_rows), kPage);
  plan->peak_bytes = plan->wide_end;
}

// Whether a pass need not wait for keys and values in LMDB's map: measured with eight requests of
// the miniature at 16 MiB, half of its time, in the kernel's search for pages to throw out.
bool HasRoomForKv(const Plan& plan) {
  uint64_t least = 0;
  const uint64_t taken = SmallPlaceBytes(plan) + plan.step_end;
  return CheckedMul(plan.options.kv_slot_bytes, plan.options.kv_least_slots, &least) &&
         taken <= plan.options.budget_bytes && least <= plan.options.budget_bytes - taken;
}

Plan TryPlan(const Model& model, const PlanOptions& options, uint64_t tile_bytes, uint32_t rows) {
  Plan plan;
  plan.options = options;
  plan.max_rows = rows;
  plan.step_rows = options.step_rows == 0 ? rows : std::min(options.step_rows, rows);
  plan.max_logit_rows = std::min(options.max_logit_rows, plan.step_rows);
  BuildStages(model, options.granularity == Granularity::kHead, tile_bytes, &plan.stages,
              &plan.tiles);
  uint64_t largest = 0;   // as it is read
  uint64_t resident = 0;  // of all tiles
  for (const Tile& tile : plan.tiles) {
    plan.tile_bytes = std::max(plan.tile_bytes, tile.bytes);
    largest = std::max(largest, ReadBufferBytes(tile.offset, tile.bytes));
    plan.model_bytes += tile.bytes;
    resident += AlignUp(tile.bytes, kValueAlignment);
  }
  plan.span_bytes = kSpanTiles * largest;
  PlaceBehindRing(model, kFewestRingTiles * largest, &plan);
  // A larger ring is not worth smaller tiles, fewer rows, more groups or keys and values in LMDB's
  // map, where the smallest one would keep them out of it, and of no use where all tiles stay.
  if (plan.peak_bytes > options.budget_bytes) return plan;
  const uint64_t room = ArenaEnd(options) - plan.step_end;
  if (room >= resident) return plan;
  const bool room_for_kv = HasRoomForKv(plan);
  for (uint64_t n = RingTiles(options, largest, resident - room); n > kFewestRingTiles;
       n -= kSpanTiles) {
    Plan larger = plan;
    PlaceBehindRing(model, n * largest, &larger);
    if (larger.peak_bytes > options.budget_bytes) continue;
    if (room_for_kv && !HasRoomForKv(larger)) continue;
    if (larger.groups.size() == plan.groups.size()) return larger;
  }
  return plan;
}

}  // namespace

uint64_t HeldEnd(const Plan& plan) {
  if (!plan.Streams()) return plan.step_end;
  const uint64_t page_end = AlignUp(plan.ring_bytes, kHugePageBytes);
  return page_end <= plan.options.budget_bytes ? std::max(plan.step_end, page_end) : plan.step_end;
}

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

void SetRows(uint32_t prompt_chunk, uint32_t max_active, uint32_t draft_tokens,
             PlanOptions* options) {
  options->step_rows = options->max_logit_rows = max_active + draft_tokens;
  if (prompt_chunk == 0) {
    prompt_chunk =
        options->budget_bytes == UINT64_MAX ? kPromptChunkWithoutCeiling : kLargestPromptChunk;
  }
  options->max_rows = std::max(prompt_chunk, options->step_rows);
}

void SetKv(uint64_t slot_bytes, uint32_t max_active, uint32_t context_tokens,
           PlanOptions* options) {
  options->kv_slot_bytes = slot_bytes;
  options->kv_slots =
      uint64_t{max_active} * ((uint64_t{context_tokens} + kKvBlockTokens - 1) / kKvBlockTokens);
  options->kv_least_slots = std::min<uint64_t>(options->kv_slots, max_active);
}

Result<Plan> MakePlan(const Model& model, const PlanOptions& given) {
  PlanOptions options = given;
  if (options.budget_bytes == UINT64_MAX) options.spare_bytes = 0;
  if (options.max_rows == 0 || options.max_logit_rows == 0) {
    return InvalidArgumentError("plan: a pass needs at least 1 row, and 1 that wants logits");
  }
  uint64_t first_tile = options.tile_bytes;
  if (first_tile == 0 && options.budget_bytes == UINT64_MAX) {
    first_tile = kTileWithoutCeiling;
  } else if (first_tile == 0) {
    first_tile = kLargestTile;
    while (first_tile > kFairTile && first_tile > options.budget_bytes / 16) {
      first_tile /= 2;
    }
    if (options.speeds.flash_bytes_per_second > 0) {
      const double most = options.speeds.flash_bytes_per_second * kTileSeconds;
      while (first_tile > kSmallestOnSlowFlash && static_cast<double>(first_tile) > most) {
        first_tile /= 2;
      }
    }
  }
  // As it is read, a tile begins and ends in the middle of a page: with it, the ring's places fill
  // huge pages.
  const uint64_t page =
      options.tile_bytes == 0 && options.budget_bytes != UINT64_MAX ? kReadAlignment : 0;
  uint64_t smallest = UINT64_MAX;
  const uint32_t step_rows = options.step_rows == 0 ? options.max_rows : options.step_rows;
  size_t step_groups = 0;  // of a plan for step_rows alone
  for (uint32_t rows = options.max_rows; rows > 0;) {
    const bool wide = rows > step_rows;
    // A prompt's rows are not worth reads that are all latency in every pass, nor more groups.
    const uint64_t last_tile = std::min(wide ? kFairTile : kSmallestTile, first_tile);
    for (uint64_t tile = first_tile; tile >= last_tile; tile /= 2) {
      Plan plan = TryPlan(model, options, tile - page, rows);
      smallest = std::min(smallest, plan.peak_bytes);
      if (plan.peak_bytes > options.budget_bytes) continue;
      if (wide) {
        if (step_groups == 0)
          step_groups = TryPlan(model, options, tile - page, step_rows).groups.size();
        if (plan.groups.size() > step_groups) break;
      }
      if (options.budget_bytes == UINT64_MAX) plan.options.budget_bytes = kNoBudget;
      ChooseResident(&plan);
      plan.options.budget_bytes = options.budget_bytes;
      const uint64_t budget = AlignDown(options.budget_bytes, kPage);
      plan.options.spare_bytes =
          std::min(options.spare_bytes, plan.peak_bytes - std::min(plan.peak_bytes, budget));
      for (const Tile& tile_of_pass : plan.tiles) {
        if (!tile_of_pass.resident()) plan.pass_bytes += tile_of_pass.bytes;
      }
      plan.shared_prompt_rows = SharedPromptRows(plan);
      return plan;
    }
    rows = wide ? std::max(rows / 2, step_rows) : rows / 2;
  }
  return ResourceExhaustedError("plan " + model.name + ": the buffers need at least " +
                                FormatBytes(smallest) + ", the budget is " +
                                FormatBytes(options.budget_bytes));
}

}  // namespace thimble
