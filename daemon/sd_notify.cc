#include "daemon/sd_notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace thimble {
namespace {

// The whole number in the environment's `name`; 0 where there is none, or something else.
uint64_t EnvironmentNumber(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return 0;
  uint64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [last, error] = std::from_chars(text, end, value);
  return error == std::errc() && last == end ? value : 0;
}

}  // namespace

void SdNotify(std::string_view state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  const size_t length = std::strlen(path);
  sockaddr_un address{};
  if (length >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(static_cast<char*>(address.sun_path), path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // the abstract namespace
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  (void)::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), size);
  ::close(fd);
}

std::chrono::microseconds WatchdogInterval() {
  // A parent that is watched may have left its variables to us.
  if (std::getenv("WATCHDOG_PID") != nullptr &&
      EnvironmentNumber("WATCHDOG_PID") != static_cast<uint64_t>(::getpid())) {
    return {};
  }
  // An hour is no watch; the bound keeps the sum with a clock's time in range.
  constexpr uint64_t kLongest = 3'600'000'000;
  return std::chrono::microseconds(std::min(EnvironmentNumber("WATCHDOG_USEC"), kLongest) / 2);
}

}  // namespace thimble
