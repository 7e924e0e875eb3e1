#include "daemon/sd_notify.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A service manager: the socket, and the variables that name it.
class SdNotifyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = directory_.path() + "/notify";
    sockaddr_un address{};
    ASSERT_LT(path.size(), sizeof address.sun_path);
    address.sun_family = AF_UNIX;
    std::memcpy(static_cast<char*>(address.sun_path), path.data(), path.size());
    fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  void TearDown() override {
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
    ::close(fd_);
  }
  // The next datagram, waiting for it at most `limit`; "" if none came.
  std::string Next(milliseconds limit) const {
    const timeval timeout{.tv_sec = limit.count() / 1000,
                          .tv_usec = limit.count() % 1000 * 1000 + 1};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    std::array<char, 64> text{};
    const ssize_t n = ::recv(fd_, text.data(), text.size(), 0);
    return n > 0 ? std::string(text.data(), static_cast<size_t>(n)) : "";
  }

 private:
  TemporaryDirectory directory_;
  int fd_ = -1;
};

TEST_F(SdNotifyTest, SendsOneDatagram) {
  SdNotify("READY=1");
  EXPECT_EQ(Next(milliseconds(1000)), "READY=1");
  EXPECT_EQ(Next(milliseconds(0)), "");
}

TEST_F(SdNotifyTest, TheWatchdogWantsHalfItsTimeFromThisProcessOnly) {
  EXPECT_EQ(WatchdogInterval(), microseconds(0));
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  EXPECT_EQ(WatchdogInterval(), std::chrono::seconds(15));
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  EXPECT_EQ(WatchdogInterval(), std::chrono::seconds(15));
  ::setenv("WATCHDOG_PID", std::to_string(::getppid()).c_str(), 1);
  EXPECT_EQ(WatchdogInterval(), microseconds(0));
  ::setenv("WATCHDOG_PID", "", 1);
  EXPECT_EQ(WatchdogInterval(), microseconds(0));
  ::unsetenv("WATCHDOG_PID");
  for (const char* nonsense : {"", "-1", "30s", "99999999999999999999999"}) {
    ::setenv("WATCHDOG_USEC", nonsense, 1);
    EXPECT_EQ(WatchdogInterval(), microseconds(0)) << nonsense;
  }
  ::setenv("WATCHDOG_USEC", "18446744073709551615", 1);
  EXPECT_LE(WatchdogInterval(), std::chrono::hours(1));
}

TEST_F(SdNotifyTest, AnIdleLoopFeedsTheWatchdogAndAStuckOneDoesNot) {
  ::setenv("WATCHDOG_USEC", "400000", 1);
  FakeDaemon daemon;
  daemon.Start();
  for (int i = 0; i < 4; ++i) ASSERT_EQ(Next(milliseconds(5000)), "WATCHDOG=1") << i;
  std::promise<void> stuck;
  std::promise<void> release;
  daemon.On([&] {
    stuck.set_value();
    release.get_future().wait();
  });
  stuck.get_future().wait();
  while (!Next(milliseconds(0)).empty()) {
  }
  EXPECT_EQ(Next(milliseconds(600)), "");
  release.set_value();
  EXPECT_EQ(Next(milliseconds(5000)), "WATCHDOG=1");
  EXPECT_TRUE(daemon.Stop().ok());
}

TEST_F(SdNotifyTest, ALoopThatIsNotWatchedSendsNothingWhileItRuns) {
  FakeDaemon daemon;
  daemon.Start();
  EXPECT_EQ(Next(milliseconds(300)), "");
  EXPECT_TRUE(daemon.Stop().ok());
  EXPECT_EQ(Next(milliseconds(1000)), "STOPPING=1");
}

}  // namespace
}  // namespace thimble
