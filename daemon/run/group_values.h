// A group's inputs and outputs on their way between the stage store and their places in the arena,
// part by part, so that a group needs room for the parts that it uses alone. Called by: the runner,
// where it enters and leaves a group. Memory: none; the values lie in the arena.
#pragma once

#include <cstdint>

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "daemon/run/arena.h"
#include "storage/base/status.h"
#include "storage/stage_store.h"

namespace thimble {

// What every call of a pass shares.
struct GroupValues {
  const Model& model;
  const Plan& plan;
  Arena& arena;
  StageStore& store;
};

// The rows of a pass: all of them, and those that want logits, which the last stages' xn holds.
struct PassRows {
  uint32_t all = 0;
  uint32_t with_logits = 0;
};

// Reads the values of `group.inputs` into their places in `group`. Errors: as StageStore::Read.
Status LoadInputs(const GroupValues& values, const Group& group, PassRows rows);
// Writes those of `group.outputs`. Errors: as StageStore::Write.
Status StoreOutputs(const GroupValues& values, const Group& group, PassRows rows);

}  // namespace thimble
