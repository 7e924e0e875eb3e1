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
  std::string why;
  const HttpRoutes routes = MakeHttpRoutes(source, [&why] { return why; });
  EXPECT_EQ(routes.at("/readyz")("").status, 200);
  why = "the daemon is stopping";
  const HttpAnswer answer = routes.at("/readyz")("");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body, "not ready: the daemon is stopping\n");
  EXPECT_EQ(routes.at("/healthz")("").status, 200) << "it lives all the same";
}

TEST(Routes, MetricsHaveLlamaServersNamesUnlessOnlyOursAreWanted) {
  const FakeSource source;
  const HttpRoutes routes = MakeHttpRoutes(source, [] { return std::string(); });
  const HttpAnswer all = routes.at("/metrics")("");
  EXPECT_EQ(all.type, kMetricsType);
  EXPECT_NE(all.body.find("thimble_build_info{version=\"1.2.3\"} 1\n"), std::string::npos);
  EXPECT_NE(all.body.find("\nllamacpp:requests_deferred 0\n"), std::string::npos);
  const HttpAnswer ours = routes.at("/metrics")("names=thimble");
  EXPECT_EQ(ours.body.find("llamacpp"), std::string::npos);
  EXPECT_TRUE(all.body.starts_with(ours.body));
}

}  // namespace
}  // namespace thimble
