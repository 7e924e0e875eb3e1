// The server-sent events of the status page, as JSON: `plan`, what does not change, once for each
// subscriber; `status`, about once a second. Only the page of the same build reads them: they are
// no interface. Called by: the routes. Memory: the text, while it is sent: a status has 1.5 KiB, a
// plan 2 KiB and 25 bytes for each stage kind of each layer (6 KiB with 30 layers).
#pragma once

#include <string>
#include <string_view>

#include "daemon/plan/plan.h"
#include "daemon/status.h"

namespace thimble {

// Stages of one kind and layer, a head each with granularity `head`, are told as one part:
// [kind, layer, first stage, stages, bytes of weights, bytes of these that stay in RAM, group].
std::string PlanEvent(const Plan& plan, const DaemonStatus& status);

// `not_ready`: why no requests are taken; empty: they are.
std::string StatusEvent(const DaemonStatus& status, std::string_view not_ready);

}  // namespace thimble
