#include "daemon/http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <chrono>
#include <deque>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/listener.h"
#include "tests/http/http_fixture.h"

namespace thimble {
namespace {

HttpRoutes Echo() {
  HttpRoutes routes;
  routes["/q"] = [](std::string_view query) -> HttpAnswer {
    return {.body = "query=" + std::string(query)};
  };
  routes["/big"] = [](std::string_view /*query*/) -> HttpAnswer {
    return {.body = std::string(4 << 20, 'x')};
  };
  return routes;
}

HttpOptions ShortTimeout() {
  HttpOptions options;
  options.timeout = std::chrono::milliseconds(300);
  return options;
}

size_t OpenDescriptors() {
  size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++n;
  return n;
}

TEST(HttpServer, AnswersByPathAndHandsTheQueryOn) {
  const TestHttp http(Echo());
  const std::string answer = Get(http, "/q?a=b");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\nquery=a=b")) << answer;
  EXPECT_TRUE(Get(http, "/q").ends_with("query="));
  EXPECT_TRUE(Get(http, "/nowhere").starts_with("HTTP/1.1 404 Not Found\r\n"));
}

TEST(HttpServer, HeadHasTheLengthWithoutTheBody) {
  const TestHttp http(Echo());
  const std::string answer =
      Exchange(http, "HEAD /q?12345 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_NE(answer.find("Content-Length: 11\r\n"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

TEST(HttpServer, KeepsAConnectionAndDoesNotStayAwakeForIt) {
  TestHttp http(Echo());
  const TestClient client(http.path());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send("GET /q?" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n"));
    const std::string answer = client.ReadAnswer();
    EXPECT_TRUE(answer.ends_with("query=" + std::to_string(i))) << answer;
  }
  EXPECT_TRUE(WaitFor([&] { return !http.Busy(); }));
  EXPECT_EQ(http.Connections(), 1);
  const TestClient silent(http.path());
  EXPECT_TRUE(WaitFor([&] { return http.Busy(); })) << "a newcomer's request is awaited";
}

TEST(HttpServer, RequestsSentTogetherAreAnsweredInOrder) {
  const TestHttp http(Echo());
  const std::string answers = Exchange(http,
                                       "GET /q?1 HTTP/1.1\r\nHost: h\r\n\r\n"
                                       "GET /q?2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const size_t first = answers.find("query=1");
  ASSERT_NE(first, std::string::npos) << answers;
  EXPECT_NE(answers.find("query=2", first), std::string::npos) << answers;
}

TEST(HttpServer, Http10ClosesUnlessAskedOtherwise) {
  const TestHttp http(Echo());
  EXPECT_TRUE(Exchange(http, "GET /q HTTP/1.0\r\n\r\n").ends_with("query="));
}

TEST(HttpServer, OtherMethodsAreRefused) {
  const TestHttp http(Echo());
  for (const std::string method : {"POST", "DELETE", "OPTIONS", "TRACE", "BREW"}) {
    const std::string answer = Exchange(http, method + " /q HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 405 ")) << method << ": " << answer;
    EXPECT_NE(answer.find("Allow: GET, HEAD\r\n"), std::string::npos);
  }
}

TEST(HttpServer, MalformedRequestsGet400AndAreClosed) {
  const TestHttp http(Echo());
  const std::vector<std::string> bad = {
      "\r\n\r\n\r\n",
      "GET\r\n\r\n",
      "GET /q\r\n\r\n",
      "GET /q HTTP/9.9\r\n\r\n",
      "GET /q HTTP/1.1\r\nno colon\r\n\r\n",
      "GET /q HTTP/1.1\r\nbad header: x\r\n\r\n",
      "GET /q HTTP/1.1\r\nHost: h\r\nContent-Length: many\r\n\r\n",
      "GET /q HTTP/1.1\r\n\r\n",  // no Host
      "GET /q\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
      std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),  // TLS
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",                               // gRPC's
      std::string(300, '\0'),
  };
  for (const std::string& request : bad) {
    const std::string answer = Exchange(http, request);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"))
        << ::testing::PrintToString(request) << " -> " << answer;
    EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos);
  }
  EXPECT_TRUE(Get(http, "/q").starts_with("HTTP/1.1 200"));
}

TEST(HttpServer, BodiesAreRefused) {
  const TestHttp http(Echo());
  for (const std::string header :
       {"Content-Length: 5", "Content-Length: 99999999999999", "Transfer-Encoding: chunked"}) {
    const std::string answer =
        Exchange(http, "GET /q HTTP/1.1\r\nHost: h\r\n" + header + "\r\n\r\nhello");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 413 ")) << header << ": " << answer;
  }
}

TEST(HttpServer, AHeaderMayHave8KiBAndNoMore) {
  const TestHttp http(Echo());
  const std::string start = "GET /q HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: ";
  const std::string most = start + std::string(8192 - start.size() - 4, 'x') + "\r\n\r\n";
  ASSERT_EQ(most.size(), 8192);
  EXPECT_TRUE(Exchange(http, most).starts_with("HTTP/1.1 200 "));
  for (const size_t size : {8193, 9 << 10, 64 << 10}) {
    const std::string answer =
        Exchange(http, start + std::string(size - start.size() - 4, 'x') + "\r\n\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 431 ")) << size << ": " << answer;
  }
  std::string many = "GET /q HTTP/1.1\r\nHost: h\r\n";
  while (many.size() < 9000) many += "a: b\r\n";
  EXPECT_TRUE(Exchange(http, many + "\r\n").starts_with("HTTP/1.1 431 "));
  EXPECT_TRUE(Exchange(http, std::string(20000, 'G')).starts_with("HTTP/1.1 4"));
}

TEST(HttpServer, SilentAndDrippingClientsAreClosedInTime) {
  TestHttp http(Echo(), ShortTimeout());
  const auto began = std::chrono::steady_clock::now();
  const TestClient silent(http.path());
  const TestClient half(http.path());
  ASSERT_TRUE(half.Send("GET /q HTTP/1.1\r\nHo"));
  const TestClient dripping(http.path());
  ASSERT_TRUE(dripping.Send("GET /q HTTP/1.1\r\nX: "));
  ASSERT_TRUE(WaitFor([&] { return http.Connections() == 3; }));
  EXPECT_TRUE(WaitFor([&] {
    (void)dripping.Send("x");
    return http.Connections() == 0;
  }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(250));
  EXPECT_EQ(silent.ReadAll(), "");
  EXPECT_EQ(half.ReadAll(), "");
}

TEST(HttpServer, AClientThatDoesNotReadItsAnswerIsClosedInTime) {
  TestHttp http(Echo(), ShortTimeout());
  const TestClient client(http.path());
  ASSERT_TRUE(client.Send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_TRUE(WaitFor([&] { return http.Connections() == 1; }));
  EXPECT_TRUE(WaitFor([&] { return http.Connections() == 0; }));
  EXPECT_LT(client.ReadAll().size(), 4 << 20);
}

TEST(HttpServer, HalfOpenConnectionsShutNobodyOut) {
  TestHttp http(Echo());
  std::deque<TestClient> half_open;
  for (int i = 0; i < 100; ++i) {
    half_open.emplace_back(http.path());
    ASSERT_TRUE(half_open.back().connected());
    (void)half_open.back().Send("GET /q HTTP/1.1\r\nHo");
    if (i % 10 != 9) continue;
    EXPECT_LE(http.Connections(), 16);
    EXPECT_TRUE(Get(http, "/q").starts_with("HTTP/1.1 200 "));
  }
  EXPECT_EQ(half_open.front().ReadAll(), "") << "the oldest made room";
}

TEST(HttpServer, ConnectionsLeaveNoDescriptors) {
  TestHttp http(Echo());
  EXPECT_TRUE(Get(http, "/q").starts_with("HTTP/1.1 200 "));
  EXPECT_TRUE(WaitFor([&] { return http.Connections() == 0; }));
  const size_t before = OpenDescriptors();
  for (int i = 0; i < 200; ++i) {
    const TestClient client(http.path());
    ASSERT_TRUE(client.connected()) << i;
    if (i % 4 == 1) (void)client.Send("GET /q HTTP/1.1\r\nHost: h\r\n\r\n");
    if (i % 4 == 2) (void)client.Send("garbage\r\n\r\n");
    if (i % 4 == 3) (void)client.Send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  // Connections are taken in their order: one that is answered has none before it that still waits.
  EXPECT_TRUE(Get(http, "/q").starts_with("HTTP/1.1 200 "));
  EXPECT_TRUE(WaitFor([&] { return http.Connections() == 0; }));
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(HttpServer, ItsUnixSocketIsForItsGroupAndGoesWithIt) {
  std::string path;
  {
    const TestHttp http(Echo());
    path = http.path();
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0660);
    const Result<int> second = Listen(*ParseListenAddress("unix:" + path), 16, "HTTP",
                                      "choose another with --http, or --http off");
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(HttpListener, APortInUseIsAnErrorThatNamesTheAddress) {
  // A port that the kernel chose, taken.
  const int taken = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof where;
  ASSERT_EQ(::bind(taken, reinterpret_cast<const sockaddr*>(&where), size), 0);
  ASSERT_EQ(::listen(taken, 1), 0);
  ASSERT_EQ(::getsockname(taken, reinterpret_cast<sockaddr*>(&where), &size), 0);
  const std::string address = "127.0.0.1:" + std::to_string(ntohs(where.sin_port));
  const Result<int> refused =
      Listen(*ParseListenAddress(address), 16, "HTTP", "choose another with --http, or --http off");
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find(address), std::string::npos);
  EXPECT_NE(refused.status().message().find("in use"), std::string::npos);
  EXPECT_NE(refused.status().message().find("--http"), std::string::npos);
  ::close(taken);
  const Result<int> free =
      Listen(*ParseListenAddress(address), 16, "HTTP", "choose another with --http, or --http off");
  ASSERT_TRUE(free.ok()) << free.status().ToString();
  ::close(*free);
}

}  // namespace
}  // namespace thimble
