// The place of a group's buffers in the arena, for any number of rows: the planner asks with the
// rows of the plan, the runner with those of a pass that has more than step_rows.
#include <algorithm>

#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr uint64_t kValueAlignment = 64;

// Places the values that the stages of `group` touch, one behind the other, and their work buffer.
void Place(const Model& model, const Plan& plan, uint32_t rows, Group* group) {
  uint8_t touched = 0;
  uint64_t work_bytes = 0;
  for (uint32_t s = group->stage_begin; s < group->stage_end; ++s) {
    const Stage& stage = plan.stages[s];
    const StageAccess access = AccessOf(stage);
    touched |= access.reads | access.writes;
    const WorkLayout work = LayoutWork(model, stage, plan.tiles, rows, plan.max_logit_rows);
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
                                  PartBytes(model, value, FormsAfter(model, stage), rows));
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

}  // namespace

Group PlaceGroup(const Model& model, const Plan& plan, uint32_t begin, uint32_t end,
                 uint32_t rows) {
  Group group;
  group.stage_begin = begin;
  group.stage_end = end;
  Place(model, plan, rows, &group);
  FindInputsAndOutputs(plan, &group);
  return group;
}

uint64_t ValuesEnd(const Model& model, const Plan& plan, uint32_t rows) {
  uint64_t bytes = 0;
  for (const Group& group : plan.groups) {
    Group placed;
    placed.stage_begin = group.stage_begin;
    placed.stage_end = group.stage_end;
    Place(model, plan, rows, &placed);
    bytes = std::max(bytes, placed.activation_bytes + placed.kv_bytes);
  }
  return plan.values_offset + bytes;
}

}  // namespace thimble
