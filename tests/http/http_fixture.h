// An HTTP server on a Unix socket of its own and a thread that runs it, and a client that sends
// bytes.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "daemon/http/server.h"

namespace thimble {

class TestHttp {
 public:
  explicit TestHttp(HttpRoutes routes, HttpOptions options = {}, HttpEvents events = {}) {
    directory_ = ::testing::TempDir() + "thimble-http-XXXXXX";
    if (::mkdtemp(directory_.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << directory_;
    options.address = *ParseListenAddress("unix:" + path());
    Result<std::unique_ptr<HttpServer>> server =
        HttpServer::Start(io_, options, std::move(routes), std::move(events));
    EXPECT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(server).value();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~TestHttp() {
    io_.stop();
    thread_.join();
    server_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  TestHttp(const TestHttp&) = delete;
  TestHttp& operator=(const TestHttp&) = delete;

  [[nodiscard]] std::string path() const { return directory_ + "/http"; }
  size_t Connections() { return On(&HttpServer::connections); }
  size_t Streams() { return On(&HttpServer::streams); }
  bool Busy() { return On(&HttpServer::busy); }

 private:
  // Asks on the server's thread.
  template <typename T>
  T On(T (HttpServer::*ask)() const) {
    std::promise<T> promise;
    std::future<T> result = promise.get_future();
    boost::asio::post(io_, [&] { promise.set_value((*server_.*ask)()); });
    return result.get();
  }

  std::string directory_;
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_{
      io_.get_executor()};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

class TestClient {
 public:
  explicit TestClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    std::memcpy(static_cast<char*>(where.sun_path), path.data(), path.size());
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0;
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    (void)::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~TestClient() { ::close(fd_); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  [[nodiscard]] bool connected() const { return connected_; }
  bool Send(std::string_view bytes) const {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // All until the server closes.
  [[nodiscard]] std::string ReadAll() const {
    std::string all;
    char buffer[4096];
    ssize_t n = 0;
    while ((n = ::recv(fd_, buffer, sizeof buffer, 0)) > 0) all.append(buffer, n);
    EXPECT_TRUE(n == 0 || errno == ECONNRESET) << "not closed: " << std::strerror(errno);
    return all;
  }
  // All up to and with `end`; "" where the server closes before.
  [[nodiscard]] std::string ReadUntil(std::string_view end) const {
    std::string all;
    char c = 0;
    while (!all.ends_with(end)) {
      if (::recv(fd_, &c, 1, 0) != 1) return "";
      all += c;
    }
    return all;
  }
  // One answer with a Content-Length.
  [[nodiscard]] std::string ReadAnswer() const {
    std::string answer;
    size_t want = std::string::npos;
    char c = 0;
    while (answer.size() < want && ::recv(fd_, &c, 1, 0) == 1) {
      answer += c;
      if (want != std::string::npos || !answer.ends_with("\r\n\r\n")) continue;
      const size_t at = answer.find("Content-Length: ");
      if (at == std::string::npos) return answer;
      want = answer.size() + std::stoul(answer.substr(at + 16));
    }
    return answer;
  }

 private:
  const int fd_;
  bool connected_ = false;
};

inline std::string Exchange(const TestHttp& http, std::string_view request) {
  const TestClient client(http.path());
  EXPECT_TRUE(client.connected());
  (void)client.Send(request);
  return client.ReadAll();
}

inline std::string Get(const TestHttp& http, const std::string& target) {
  return Exchange(http,
                  "GET " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
}

// Waits, at most ten seconds, until `condition` holds.
template <typename Condition>
bool WaitFor(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace thimble
