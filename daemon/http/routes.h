// What the HTTP server answers:
//
//   /healthz  200 "ok" while the loop turns (a loop that does not turn answers nothing)
//   /readyz   200 "ready", or 503 with the reason
//   /metrics  Prometheus' text format, llama-server's names included; /metrics?names=thimble: ours
//   alone
//
// Called by: main. Memory: none kept.
#pragma once

#include <functional>
#include <string>

#include "daemon/http/server.h"
#include "daemon/status.h"

namespace thimble {

// `not_ready`: why no requests are taken; empty: they are. Both must outlive the server.
HttpRoutes MakeHttpRoutes(const StatusSource& status, std::function<std::string()> not_ready);

}  // namespace thimble
