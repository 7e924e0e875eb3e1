#include "daemon/rpc/listen_address.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

// A bound Unix socket; listening or, closed at once, stale.
int BindSocket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(static_cast<char*>(address.sun_path), path.data(), path.size());
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

TEST(ListenAddress, AcceptsAUnixSocketAndLoopback) {
  for (const char* text :
       {"unix:/run/thimble/thimble.sock", "unix:relative", "127.0.0.1:7070", "[::1]:65535"}) {
    const Result<ListenAddress> address = ParseListenAddress(text);
    ASSERT_TRUE(address.ok()) << text << ": " << address.status().ToString();
    EXPECT_EQ(address->grpc, text);
  }
  EXPECT_EQ(ParseListenAddress("unix:/a/b")->path, "/a/b");
  EXPECT_EQ(ParseListenAddress("127.0.0.1:1")->path, "");
}

TEST(ListenAddress, RefusesEverythingElse) {
  for (const std::string& text :
       {std::string(""), std::string("unix:"), "unix:/" + std::string(120, 'a'),
        std::string("0.0.0.0.0:80"), std::string("127.0.0.1"), std::string("127.0.0.1:"),
        std::string("127.0.0.1:0"), std::string("127.0.0.1:65536"), std::string("127.0.0.1:80x"),
        std::string("[::1:80"), std::string("::1:80"), std::string("localhost:80"),
        std::string("192.168.0.256:80"), std::string("[127.0.0.1]:80"), std::string(":80"),
        std::string("/run/thimble.sock")}) {
    const Result<ListenAddress> address = ParseListenAddress(text);
    EXPECT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(ListenAddress, TellsWhatOtherMachinesReach) {
  for (const char* text : {"unix:/s", "127.0.0.1:1", "127.255.0.1:1", "[::1]:1"}) {
    EXPECT_FALSE(ParseListenAddress(text)->remote) << text;
  }
  for (const char* text : {"0.0.0.0:1", "128.0.0.1:1", "10.0.0.1:1", "[::]:1", "[fe80::1]:1"}) {
    const Result<ListenAddress> address = ParseListenAddress(text);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_TRUE(address->remote) << text;
  }
}

TEST(PrepareSocket, RemovesAStaleSocket) {
  const TemporaryDirectory directory;
  const ListenAddress address = *ParseListenAddress("unix:" + directory.path() + "/s");
  ::close(BindSocket(address.path));
  EXPECT_EQ(TestConnect(address).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(PrepareSocket(address).ok());
  EXPECT_FALSE(std::filesystem::exists(address.path));
  EXPECT_EQ(TestConnect(address).code(), StatusCode::kNotFound);
}

TEST(PrepareSocket, RefusesASocketThatAnswersEvenWithAFullBacklog) {
  const TemporaryDirectory directory;
  const ListenAddress address = *ParseListenAddress("unix:" + directory.path() + "/s");
  const int fd = BindSocket(address.path);
  ASSERT_EQ(::listen(fd, 0), 0);
  for (int i = 0; i < 3; ++i) {  // nobody accepts: the backlog fills up
    const Status status = PrepareSocket(address);
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
    EXPECT_NE(status.message().find(address.path), std::string::npos);
  }
  EXPECT_TRUE(std::filesystem::exists(address.path));
  ::close(fd);
}

TEST(PrepareSocket, DoesNotTouchWhatIsNoSocket) {
  const TemporaryDirectory directory;
  const ListenAddress address = *ParseListenAddress("unix:" + directory.path() + "/file");
  std::ofstream(address.path) << "precious";
  EXPECT_EQ(PrepareSocket(address).code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::exists(address.path));
}

TEST(PrepareSocket, MakesTheSocketsOwnDirectoryAndNoMore) {
  const TemporaryDirectory directory;
  EXPECT_TRUE(PrepareSocket(*ParseListenAddress("unix:" + directory.path() + "/run/s")).ok());
  EXPECT_TRUE(std::filesystem::is_directory(directory.path() + "/run"));
  const Status status =
      PrepareSocket(*ParseListenAddress("unix:" + directory.path() + "/none/at/all/s"));
  EXPECT_EQ(status.code(), StatusCode::kNotFound) << status.ToString();
}

}  // namespace
}  // namespace thimble
