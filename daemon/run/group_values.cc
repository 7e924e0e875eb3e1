#include "daemon/run/group_values.h"

#include <span>

#include "daemon/plan/stage.h"
#include "daemon/plan/values.h"

namespace thimble {
namespace {

// The stage that says a value's shape in `group`: the first that reads it, or the last that writes
// it. A value has one shape within its group, that of any stage that touches it.
const Stage& ShapedBy(const Plan& plan, const Group& group, Value value, bool write) {
  const Stage* shaped = &plan.stages[write ? group.stage_end - 1 : group.stage_begin];
  for (uint32_t s = group.stage_begin; s < group.stage_end; ++s) {
    const StageAccess access = AccessOf(plan.stages[s]);
    if (((write ? access.writes : access.reads) & Bit(value)) == 0) continue;
    shaped = &plan.stages[s];
    if (!write) break;
  }
  return *shaped;
}

Status MoveValue(const GroupValues& to, const Group& group, PassRows rows, Value value,
                 bool write) {
  const Stage& stage = ShapedBy(to.plan, group, value, write);
  const bool last = stage.kind == StageKind::kFinalNorm || stage.kind == StageKind::kLogits;
  const uint64_t n_rows = last && value == Value::kXn ? rows.with_logits : rows.all;
  const uint64_t bytes = PartBytes(to.model, value, FormsAfter(to.model, stage), n_rows);
  const Placement& placement = group.values[static_cast<size_t>(value)];
  std::byte* base = to.arena.Use(placement.offset, placement.bytes);
  const PartRange parts = PartsOf(to.model, stage, value);
  for (uint32_t part = parts.begin; part < parts.end; ++part) {
    // A gathering stage has the parts of its own heads to make, not to read.
    if (!write && value == Value::kKv && part >= KvHeadBegin(to.model, stage) &&
        part < KvHeadEnd(to.model, stage)) {
      continue;
    }
    const std::span<std::byte> span(base + (part - parts.begin) * bytes,
                                    static_cast<size_t>(bytes));
    const auto id = static_cast<uint32_t>(value);
    THIMBLE_RETURN_IF_ERROR(write ? to.store.Write(id, part, span) : to.store.Read(id, part, span));
  }
  return {};
}

Status MoveValues(const GroupValues& values, const Group& group, PassRows rows, uint8_t moved,
                  bool write) {
  for (size_t v = 0; v < kArenaValues; ++v) {
    const auto value = static_cast<Value>(v);
    if ((moved & Bit(value)) == 0) continue;
    THIMBLE_RETURN_IF_ERROR(MoveValue(values, group, rows, value, write));
  }
  return {};
}

}  // namespace

Status LoadInputs(const GroupValues& values, const Group& group, PassRows rows) {
  return MoveValues(values, group, rows, group.inputs, /*write=*/false);
}

Status StoreOutputs(const GroupValues& values, const Group& group, PassRows rows) {
  return MoveValues(values, group, rows, group.outputs, /*write=*/true);
}

}  // namespace thimble
