// What the HTTP server answers:
//
//   /         the status page
//   /events   what it shows, as server-sent events
//   /healthz  200 "ok" while the loop turns (a loop that does not turn answers nothing)
//   /readyz   200 "ready", or 503 with the reason
//   /metrics  Prometheus' text format; /metrics?names=llamacpp (or vllm, or both with a comma):
//             other servers' names beside ours
//
// Called by: main. Memory: none kept.
#pragma once

#include <functional>
#include <string>

#include "daemon/http/server.h"
#include "daemon/plan/plan.h"
#include "daemon/status.h"

namespace thimble {

// `not_ready`: why no requests are taken; empty: they are. All must outlive the server.
struct HttpSources {
  const StatusSource& status;
  const Plan& plan;
  std::function<std::string()> not_ready;
};

HttpRoutes MakeHttpRoutes(const HttpSources& sources);
// For the server's streams.
HttpEvents MakeHttpEvents(const HttpSources& sources);

}  // namespace thimble
