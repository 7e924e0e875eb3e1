#include "daemon/http/routes.h"

#include <gtest/gtest.h>

#include <string>

#include "daemon/http/metrics.h"

namespace thimble {
namespace {

class FakeSource final : public StatusSource {
 public:
  [[nodiscard]] DaemonStatus Describe() const override {
    DaemonStatus status;
    status.version = "1.2.3";
    return status;
  }
};

TEST(Routes, ReadinessSaysWhyNot) {
  const FakeSource source;
  const Plan plan;
  std::string why;
  const HttpRoutes routes =
      MakeHttpRoutes({.status = source, .plan = plan, .not_ready = [&why] { return why; }});
  EXPECT_EQ(routes.at("/readyz")("").status, 200);
  why = "the daemon is stopping";
  const HttpAnswer answer = routes.at("/readyz")("");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body, "not ready: the daemon is stopping\n");
  EXPECT_EQ(routes.at("/healthz")("").status, 200) << "it lives all the same";
}

TEST(Routes, MetricsHaveOurNamesAloneUnlessOthersAreAskedFor) {
  const FakeSource source;
  const Plan plan;
  const HttpRoutes routes =
      MakeHttpRoutes({.status = source, .plan = plan, .not_ready = [] { return std::string(); }});
  const HttpAnswer ours = routes.at("/metrics")("");
  EXPECT_EQ(ours.type, kMetricsType);
  EXPECT_NE(ours.body.find("thimble_build_info{version=\"1.2.3\"} 1\n"), std::string::npos);
  EXPECT_EQ(ours.body.find(':'), ours.body.npos) << "promtool's style check objects to colons";
  EXPECT_EQ(routes.at("/metrics")("names=thimble").body, ours.body);
  const HttpAnswer llamacpp = routes.at("/metrics")("names=llamacpp");
  EXPECT_TRUE(llamacpp.body.starts_with(ours.body));
  EXPECT_NE(llamacpp.body.find("\nllamacpp:requests_deferred 0\n"), std::string::npos);
  const HttpAnswer both = routes.at("/metrics")("names=llamacpp,vllm");
  EXPECT_TRUE(both.body.starts_with(llamacpp.body));
  EXPECT_NE(both.body.find("\nvllm:num_requests_waiting 0\n"), std::string::npos);
}

TEST(Routes, AnUnknownQueryIsRefused) {
  const FakeSource source;
  const Plan plan;
  const HttpRoutes routes =
      MakeHttpRoutes({.status = source, .plan = plan, .not_ready = [] { return std::string(); }});
  for (const std::string query : {"names=", "names=vllm,", "names=prometheus", "x=y", "names"}) {
    EXPECT_EQ(routes.at("/metrics")(query).status, 400) << query;
  }
}

}  // namespace
}  // namespace thimble
