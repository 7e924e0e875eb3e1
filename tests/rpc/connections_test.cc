#include "daemon/rpc/connections.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/listener.h"

namespace thimble {
namespace {

int ConnectTo(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

TEST(RpcConnections, MoreThanTheBoundWaitUntilAPlaceIsFree) {
  std::string directory =
      (std::filesystem::temp_directory_path() / "thimble-connections-XXXXXX").string();
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/socket";
  const Result<int> listener =
      Listen(*ParseListenAddress("unix:" + path), 16, "gRPC", "choose another");
  ASSERT_TRUE(listener.ok()) << listener.status().ToString();
  grpc::ServerBuilder builder;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  {
    RpcConnections connections(*listener, 3);
    connections.Update(*server);
    EXPECT_EQ(connections.size(), 0U);
    std::vector<int> clients;
    for (int i = 0; i < 8; ++i) clients.push_back(ConnectTo(path));
    connections.Update(*server);
    connections.Update(*server);
    EXPECT_EQ(connections.size(), 3U);
    // Two go: two of those that wait get their places, and no more than two.
    ::close(clients[0]);
    ::close(clients[2]);
    connections.Update(*server);
    EXPECT_EQ(connections.size(), 3U);
    // All go: the three that never got a place are accepted in their turn and let go of.
    for (const size_t i : {1, 3, 4, 5, 6, 7}) ::close(clients[i]);
    for (int i = 0; i < 4; ++i) connections.Update(*server);
    EXPECT_EQ(connections.size(), 0U);
  }
  server->Shutdown();
  queue->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) {
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace thimble
