// Whether items can be one pass: what the runner holds its callers to. Called by: the runner.
// Memory: none.
#pragma once

#include <span>

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "daemon/run/runner.h"
#include "storage/base/status.h"

namespace thimble {

// INTERNAL for an item without sequence, tokens or sink, for one whose tokens are not those of its
// tree of drafts, and for more rows than the plan has;
// INVALID_ARGUMENT for a token outside the vocabulary; OUT_OF_RANGE past the model's context.
Status CheckPass(const Model& model, const Plan& plan, std::span<const PassItem> items);

}  // namespace thimble
