#include "daemon/rpc/connections.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/listener.h"

namespace thimble {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kHeld = 3;
constexpr size_t kPlaces = kHeld + RpcConnections::kVisitors;

sockaddr_un Address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  return address;
}

// A gRPC server without a service, whose connections are clients of the test's on a Unix socket.
class RpcConnectionsTest : public testing::Test {
 protected:
  RpcConnectionsTest() {
    EXPECT_NE(::mkdtemp(directory_.data()), nullptr);
    const Result<int> listener =
        Listen(*ParseListenAddress("unix:" + directory_ + "/socket"), 16, "gRPC", "choose another");
    EXPECT_TRUE(listener.ok()) << listener.status().ToString();
    grpc::ServerBuilder builder;
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    connections_ = std::make_unique<RpcConnections>(*listener, kHeld, [this] { return now_; });
  }
  ~RpcConnectionsTest() override {
    for (const int client : clients_) ::close(client);
    connections_.reset();
    server_->Shutdown();
    queue_->Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_->Next(&tag, &ok)) {
    }
    std::filesystem::remove_all(directory_);
  }

  // A client that connects, from an address of its own; its place in clients_.
  size_t Connect() {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const sockaddr_un own = Address(directory_ + "/" + std::to_string(clients_.size()));
    EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own), 0);
    const sockaddr_un server = Address(directory_ + "/socket");
    EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&server), sizeof server), 0);
    clients_.push_back(fd);
    return clients_.size() - 1;
  }
  void Update() { connections_->Update(*server_); }
  // Connects and is accepted: what gRPC calls the connection. Found by the client's address, among
  // all descriptors: gRPC's threads open and close some of theirs at any time, so that the number
  // of the next one is not known before.
  std::string Accepted() {
    const std::string client = directory_ + "/" + std::to_string(Connect());
    Update();
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      const std::string number = entry.path().filename();
      sockaddr_un peer{};
      socklen_t length = sizeof peer;
      if (::getpeername(std::stoi(number), reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
          peer.sun_family != AF_UNIX || static_cast<const char*>(peer.sun_path) != client) {
        continue;
      }
      // One of two: the other is the duplicate.
      if (std::string name = "fd:" + number; connections_->PeerOf(name).has_value()) return name;
    }
    return "";
  }
  bool Closed(size_t client) const {
    char byte = 0;
    ssize_t n = 1;
    while (n > 0) n = ::recv(clients_[client], &byte, 1, 0);  // what the server had to say
    return n == 0;
  }

  std::string directory_ =
      (std::filesystem::temp_directory_path() / "thimble-connections-XXXXXX").string();
  RpcConnections::Clock::time_point now_{seconds(1000)};
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<RpcConnections> connections_;
  std::vector<int> clients_;
};

TEST_F(RpcConnectionsTest, ANewcomerGetsThePlaceOfTheOneThatWasIdleLongest) {
  for (size_t i = 0; i < kPlaces; ++i) {
    Accepted();
    now_ += milliseconds(1);
  }
  EXPECT_EQ(connections_->size(), kPlaces);
  const size_t newcomer = Connect();
  Update();
  EXPECT_FALSE(Closed(0)) << "it has had no time to call";
  now_ += RpcConnections::kIdleGrace;
  Update();
  EXPECT_EQ(connections_->size(), kPlaces);
  EXPECT_TRUE(Closed(0));
  for (size_t i = 1; i <= newcomer; ++i) EXPECT_FALSE(Closed(i)) << i;
}

TEST_F(RpcConnectionsTest, ThoseThatGoMakeRoomAtOnce) {
  for (size_t i = 0; i < kPlaces + 4; ++i) Connect();
  Update();
  EXPECT_EQ(connections_->size(), kPlaces);
  ::shutdown(clients_[0], SHUT_RDWR);
  ::shutdown(clients_[2], SHUT_RDWR);
  Update();
  EXPECT_EQ(connections_->size(), kPlaces);
  for (const int client : clients_) ::shutdown(client, SHUT_RDWR);
  for (int i = 0; i < 4; ++i) Update();
  EXPECT_EQ(connections_->size(), 0U);
}

TEST_F(RpcConnectionsTest, WhatLastsKeepsItsPlaceAndIsRefusedToMoreThanTheBound) {
  std::vector<uint64_t> held;
  for (size_t i = 0; i < kPlaces; ++i) {
    const uint64_t connection = connections_->CallBegan(Accepted());
    ASSERT_NE(connection, 0U);
    const Status status = connections_->Hold(connection);
    if (i < kHeld) {
      EXPECT_TRUE(status.ok()) << status.ToString();
      held.push_back(connection);
    } else {
      EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
      EXPECT_EQ(status.message(), "3 connections have calls under way, the limit is 3");
      connections_->CallEnded(connection, false);
    }
  }
  EXPECT_TRUE(connections_->Hold(held[0]).ok()) << "a second call of one that has one";
  connections_->CallEnded(held[0], true);
  now_ += seconds(100);
  for (size_t i = 0; i < RpcConnections::kVisitors; ++i) Accepted();
  EXPECT_EQ(connections_->size(), kPlaces);
  for (size_t i = 0; i < kPlaces; ++i) EXPECT_EQ(Closed(i), i >= kHeld) << i;
  // The call of one ends: it is like the others now.
  connections_->CallEnded(held[1], true);
  now_ += seconds(100);
  while (!Closed(1)) {
    Accepted();
    ASSERT_LT(clients_.size(), 4 * kPlaces);
  }
  EXPECT_FALSE(Closed(0));
  EXPECT_FALSE(Closed(2));
}

TEST_F(RpcConnectionsTest, ACallThatGetsNoFurtherKeepsItsPlaceForAWhileOnly) {
  const uint64_t stuck = connections_->CallBegan(Accepted());
  ASSERT_NE(stuck, 0U);
  now_ += seconds(1);
  while (connections_->size() < kPlaces) Accepted();
  now_ += seconds(1);
  Accepted();
  EXPECT_FALSE(Closed(0));
  EXPECT_TRUE(Closed(1));
  now_ += RpcConnections::kCallGrace;
  Accepted();
  EXPECT_TRUE(Closed(0));
  connections_->CallEnded(stuck, false);  // of a connection that is gone: ignored
  EXPECT_EQ(connections_->Hold(stuck).code(), StatusCode::kUnavailable);
}

TEST_F(RpcConnectionsTest, WhereAcceptingFailsTheSocketIsNotWaitedForUntilItSucceeds) {
  EXPECT_GE(connections_->AwaitsFirst(), 0);
  Connect();
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit few{1, limit.rlim_max};  // 0, which is taken; poll(2) of more would fail, too
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  Update();
  const size_t accepted = connections_->size();
  const int awaited = connections_->AwaitsFirst();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(accepted, 0U);
  EXPECT_EQ(awaited, -1) << "it stays readable: who waits for it would be told at once";
  Update();
  EXPECT_EQ(connections_->size(), 1U);
  ::shutdown(clients_.back(), SHUT_RDWR);
  Update();
  EXPECT_EQ(connections_->size(), 0U);
  EXPECT_GE(connections_->AwaitsFirst(), 0);
}

TEST_F(RpcConnectionsTest, NamesTheProcessAtTheOtherEnd) {
  const std::string peer = Accepted();
  const std::optional<ucred> credentials = connections_->PeerOf(peer);
  ASSERT_TRUE(credentials.has_value());
  EXPECT_EQ(credentials->pid, ::getpid());
  EXPECT_EQ(credentials->uid, ::getuid());
  EXPECT_FALSE(connections_->PeerOf("ipv4:127.0.0.1:9").has_value());
  EXPECT_EQ(connections_->CallBegan("ipv4:127.0.0.1:9"), 0U);
}

}  // namespace
}  // namespace thimble
