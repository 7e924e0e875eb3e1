#include "daemon/rpc/listen_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>

namespace thimble {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::string_view kIpv4 = "127.0.0.1:";
constexpr std::string_view kIpv6 = "[::1]:";

bool ParsePort(std::string_view text, uint16_t* port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *port);
  return error == std::errc() && end == text.data() + text.size() && *port != 0;
}

// 0 or connect's errno. A Unix socket does not block: a full backlog is EAGAIN.
int ConnectTo(int family, const void* address, socklen_t size) {
  const int fd =
      ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | (family == AF_UNIX ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0) return errno;
  const int error = ::connect(fd, static_cast<const sockaddr*>(address), size) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

int Connect(const ListenAddress& address) {
  if (!address.path.empty()) {
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    std::memcpy(static_cast<char*>(where.sun_path), address.path.data(), address.path.size());
    return ConnectTo(AF_UNIX, &where, sizeof where);
  }
  const bool v4 = address.grpc.starts_with(kIpv4);
  uint16_t port = 0;
  ParsePort(std::string_view(address.grpc).substr(v4 ? kIpv4.size() : kIpv6.size()), &port);
  if (v4) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(port);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return ConnectTo(AF_INET, &where, sizeof where);
  }
  sockaddr_in6 where{};
  where.sin6_family = AF_INET6;
  where.sin6_port = htons(port);
  where.sin6_addr = in6addr_loopback;
  return ConnectTo(AF_INET6, &where, sizeof where);
}

}  // namespace

Result<ListenAddress> ParseListenAddress(std::string_view text) {
  ListenAddress address;
  address.grpc = text;
  uint16_t port = 0;
  if (text.starts_with(kUnix)) {
    address.path = text.substr(kUnix.size());
    const size_t most = sizeof(sockaddr_un::sun_path) - 1;
    if (address.path.empty() || address.path.size() > most) {
      return InvalidArgumentError("the path of a Unix socket has 1 to " + std::to_string(most) +
                                  " bytes");
    }
    return address;
  }
  if ((text.starts_with(kIpv4) && ParsePort(text.substr(kIpv4.size()), &port)) ||
      (text.starts_with(kIpv6) && ParsePort(text.substr(kIpv6.size()), &port))) {
    return address;
  }
  return InvalidArgumentError(
      "unix:PATH, 127.0.0.1:PORT or [::1]:PORT with a port from 1 to 65535 (without "
      "authentication, "
      "only this machine may connect)");
}

Status TestConnect(const ListenAddress& address) {
  const int error = Connect(address);
  if (error == 0 || error == EAGAIN) return {};
  return ErrnoError(error, "connect to " + address.grpc);
}

Status PrepareSocket(const ListenAddress& address) {
  const std::string& path = address.path;
  if (path.empty()) return {};
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return ErrnoError(errno, "look at " + path);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos || slash == 0) return {};
    const std::string directory = path.substr(0, slash);
    if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
      return ErrnoError(errno, "make " + directory + " for the socket");
    }
    return {};
  }
  if (!S_ISSOCK(info.st_mode)) {
    return FailedPreconditionError("listen on " + path + ": it is there and is not a socket");
  }
  const int error = Connect(address);
  if (error == 0 || error == EAGAIN) {
    return FailedPreconditionError("listen on " + path + ": another daemon answers there");
  }
  if (error != ECONNREFUSED) return ErrnoError(error, "see whether a daemon answers on " + path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, "remove the stale socket " + path);
  }
  return {};
}

}  // namespace thimble
