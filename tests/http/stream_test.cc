// Server-sent events: who gets them, how many may, and what a client that does not read costs.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <string>

#include "tests/http/http_fixture.h"

namespace thimble {
namespace {

constexpr std::string_view kGet = "GET /events HTTP/1.1\r\nHost: h\r\n\r\n";

HttpRoutes Routes() {
  HttpRoutes routes;
  routes["/events"] = [](std::string_view /*query*/) -> HttpAnswer {
    return {.type = "text/event-stream", .body = "data: first\n\n", .events = true};
  };
  routes["/q"] = [](std::string_view /*query*/) -> HttpAnswer { return {.body = "q"}; };
  return routes;
}

HttpOptions Quick() {
  HttpOptions options;
  options.event_interval = std::chrono::milliseconds(5);
  options.timeout = std::chrono::milliseconds(500);
  return options;
}

TEST(HttpStream, BeginsWithTheAnswerAndGoesOn) {
  std::atomic<int> made = 0;
  TestHttp http(Routes(), Quick(), [&] { return "data: " + std::to_string(++made) + "\n\n"; });
  const TestClient client(http.path());
  ASSERT_TRUE(client.Send(kGet));
  const std::string begin = client.ReadUntil("data: 3\n\n");
  EXPECT_TRUE(begin.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")) << begin;
  EXPECT_EQ(begin.find("Content-Length"), std::string::npos) << begin;
  EXPECT_NE(begin.find("Connection: close\r\n\r\ndata: first\n\ndata: 1\n\ndata: 2\n\n"),
            std::string::npos)
      << begin;
  EXPECT_EQ(http.Streams(), 1);
}

TEST(HttpStream, NoEventIsMadeWhenNobodyWatches) {
  std::atomic<int> made = 0;
  TestHttp http(Routes(), Quick(), [&] { return "data: " + std::to_string(++made) + "\n\n"; });
  EXPECT_TRUE(Get(http, "/q").starts_with("HTTP/1.1 200 "));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(made, 0);
  {
    const TestClient client(http.path());
    ASSERT_TRUE(client.Send(kGet));
    (void)client.ReadUntil("data: 2\n\n");
  }
  EXPECT_TRUE(WaitFor([&] { return http.Connections() == 0; })) << "it left";
  const int then = made;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(made, then + 1);
}

TEST(HttpStream, DoesNotKeepTheLoopAwakeBetweenEvents) {
  HttpOptions options = Quick();
  options.event_interval = std::chrono::hours(1);
  TestHttp http(Routes(), options, [] { return std::string("data: 1\n\n"); });
  const TestClient client(http.path());
  ASSERT_TRUE(client.Send(kGet));
  (void)client.ReadUntil("data: first\n\n");
  EXPECT_TRUE(WaitFor([&] { return !http.Busy(); }));
  EXPECT_EQ(http.Streams(), 1) << "and it outlives the timeout of requests";
  std::this_thread::sleep_for(2 * options.timeout);
  EXPECT_EQ(http.Streams(), 1);
}

TEST(HttpStream, OneMoreThanMayWatchIsToldSo) {
  TestHttp http(Routes(), Quick(), [] { return std::string("data: 1\n\n"); });
  std::deque<TestClient> watchers;
  for (size_t i = 0; i < HttpOptions().max_streams; ++i) {
    watchers.emplace_back(http.path());
    ASSERT_TRUE(watchers.back().Send(kGet));
    (void)watchers.back().ReadUntil("data: first\n\n");
  }
  const std::string refused = Get(http, "/events");
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n")) << refused;
  EXPECT_NE(refused.find("Retry-After: "), std::string::npos);
  watchers.pop_front();
  EXPECT_TRUE(WaitFor([&] { return http.Streams() < HttpOptions().max_streams; }));
}

TEST(HttpStream, HeadIsAnsweredWithoutAStream) {
  TestHttp http(Routes(), Quick(), [] { return std::string("data: 1\n\n"); });
  const std::string answer =
      Exchange(http, "HEAD /events HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
  EXPECT_EQ(http.Streams(), 0);
}

TEST(HttpStream, AWatcherThatDoesNotReadIsDroppedAndOthersGoOn) {
  std::atomic<int> made = 0;
  TestHttp http(Routes(), Quick(), [&] {
    return "data: " + std::to_string(++made) + std::string(4000, ' ') + "\n\n";
  });
  const TestClient slow(http.path());
  ASSERT_TRUE(slow.Send(kGet));
  ASSERT_TRUE(WaitFor([&] { return http.Streams() == 1; }));
  const TestClient fast(http.path());
  ASSERT_TRUE(fast.Send(kGet));
  ASSERT_TRUE(WaitFor([&] { return http.Streams() == 2; }));
  for (int i = 0; i < 1000 && http.Streams() == 2; ++i) (void)fast.ReadUntil("\n\n");
  EXPECT_EQ(http.Streams(), 1);
  EXPECT_LT(slow.ReadAll().size(), 100'000) << "no more than the sockets held";
  const int then = made;
  EXPECT_NE(fast.ReadUntil("data: " + std::to_string(then + 3)), "");
}

TEST(HttpStream, NewcomersTakeThePlacesOfOthersBeforeThoseOfWatchers) {
  TestHttp http(Routes(), Quick(), [] { return std::string("data: 1\n\n"); });
  const TestClient watcher(http.path());
  ASSERT_TRUE(watcher.Send(kGet));
  (void)watcher.ReadUntil("data: first\n\n");
  std::deque<TestClient> silent;
  for (int i = 0; i < 40; ++i) silent.emplace_back(http.path());
  EXPECT_TRUE(WaitFor([&] { return http.Connections() == HttpOptions().max_connections; }));
  EXPECT_EQ(http.Streams(), 1);
}

TEST(HttpStream, AFixedBodyIsSentWhole) {
  static const std::string page(300'000, 'p');
  HttpRoutes routes;
  routes["/"] = [](std::string_view /*query*/) -> HttpAnswer {
    return {.fixed = page, .headers = "X-Extra: 1\r\n"};
  };
  const TestHttp http(std::move(routes));
  const std::string answer = Get(http, "/");
  EXPECT_NE(answer.find("Content-Length: 300000\r\n"), std::string::npos);
  EXPECT_NE(answer.find("\r\nX-Extra: 1\r\n\r\npppp"), std::string::npos);
  EXPECT_TRUE(answer.ends_with(page));
  const std::string head =
      Exchange(http, "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_NE(head.find("Content-Length: 300000\r\n"), std::string::npos);
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
}

}  // namespace
}  // namespace thimble
