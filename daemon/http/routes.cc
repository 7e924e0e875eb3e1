#include "daemon/http/routes.h"

#include <utility>

#include "daemon/http/metrics.h"

namespace thimble {

HttpRoutes MakeHttpRoutes(const StatusSource& status, std::function<std::string()> not_ready) {
  HttpRoutes routes;
  routes["/healthz"] = [](std::string_view /*query*/) -> HttpAnswer { return {.body = "ok\n"}; };
  routes["/readyz"] = [not_ready = std::move(not_ready)](std::string_view /*query*/) -> HttpAnswer {
    const std::string why = not_ready();
    if (!why.empty()) return {.status = 503, .body = "not ready: " + why + "\n"};
    return {.body = "ready\n"};
  };
  routes["/metrics"] = [&status](std::string_view query) -> HttpAnswer {
    return {.type = std::string(kMetricsType),
            .body = MetricsPage(status.Describe(), query != "names=thimble")};
  };
  return routes;
}

}  // namespace thimble
