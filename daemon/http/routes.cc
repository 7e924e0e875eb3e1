#include "daemon/http/routes.h"

#include <utility>

#include "daemon/http/events.h"
#include "daemon/http/metrics.h"
#include "daemon/http/page.h"

namespace thimble {
namespace {

// "", or "names=llamacpp,vllm".
bool ParseNames(std::string_view query, CompatibleNames* names) {
  if (query.empty()) return true;
  constexpr std::string_view kKey = "names=";
  if (!query.starts_with(kKey)) return false;
  query.remove_prefix(kKey.size());
  while (true) {
    const size_t comma = query.find(',');
    const std::string_view name = query.substr(0, comma);
    if (name == "llamacpp") {
      names->llamacpp = true;
    } else if (name == "vllm") {
      names->vllm = true;
    } else if (name != "thimble") {  // ours are there anyway
      return false;
    }
    if (comma == std::string_view::npos) return true;
    query.remove_prefix(comma + 1);
  }
}

HttpAnswer Text(unsigned status, std::string text) {
  HttpAnswer answer;
  answer.status = status;
  answer.body = std::move(text);
  return answer;
}

HttpAnswer StatusPage(std::string_view /*query*/) {
  return {.type = "text/html; charset=utf-8",
          .body = {},
          .fixed = kStatusPage,
          .headers = kStatusPageHeaders};
}

}  // namespace

HttpRoutes MakeHttpRoutes(const HttpSources& sources) {
  HttpRoutes routes;
  routes["/"] = StatusPage;
  routes["/events"] = [sources](std::string_view /*query*/) -> HttpAnswer {
    const DaemonStatus status = sources.status.Describe();
    return {.type = "text/event-stream",
            .body = PlanEvent(sources.plan, status) + StatusEvent(status, sources.not_ready()),
            .fixed = {},
            .headers = {},
            .events = true};
  };
  routes["/healthz"] = [](std::string_view /*query*/) -> HttpAnswer { return Text(200, "ok\n"); };
  routes["/readyz"] = [sources](std::string_view /*query*/) -> HttpAnswer {
    const std::string why = sources.not_ready();
    return why.empty() ? Text(200, "ready\n") : Text(503, "not ready: " + why + "\n");
  };
  routes["/metrics"] = [sources](std::string_view query) -> HttpAnswer {
    CompatibleNames names;
    if (!ParseNames(query, &names)) {
      return Text(400, "names: thimble, llamacpp or vllm, with a comma between two\n");
    }
    HttpAnswer answer = Text(200, MetricsPage(sources.status.Describe(), names));
    answer.type = kMetricsType;
    return answer;
  };
  return routes;
}

HttpEvents MakeHttpEvents(const HttpSources& sources) {
  return [sources] { return StatusEvent(sources.status.Describe(), sources.not_ready()); };
}

}  // namespace thimble
