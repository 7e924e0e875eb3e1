#include "daemon/rpc/listen_address.h"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>

namespace thimble {
namespace {

constexpr std::string_view kUnix = "unix:";

// Splits "ADDRESS:PORT", "[ADDRESS]:PORT"; false where it is neither.
bool ParseIp(std::string_view text, SocketAddress* out) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view digits = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0) return false;
  std::string host(text.substr(0, colon));
  std::memset(out, 0, sizeof *out);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(port);
    out->size = sizeof out->v6;
    return ::inet_pton(AF_INET6, host.c_str(), &out->v6.sin6_addr) == 1;
  }
  out->v4.sin_family = AF_INET;
  out->v4.sin_port = htons(port);
  out->size = sizeof out->v4;
  return ::inet_pton(AF_INET, host.c_str(), &out->v4.sin_addr) == 1;
}

bool IsLoopback(const SocketAddress& address) {
  if (address.any.sa_family == AF_INET6) {
    return std::memcmp(&address.v6.sin6_addr, &in6addr_loopback, sizeof in6addr_loopback) == 0;
  }
  return ntohl(address.v4.sin_addr.s_addr) >> 24 == 127;
}

// 0 or connect's errno. A Unix socket does not block: a full backlog is EAGAIN.
int Connect(const ListenAddress& address) {
  const SocketAddress where = ToSocketAddress(address);
  const int family = where.any.sa_family;
  const int fd =
      ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | (family == AF_UNIX ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0) return errno;
  const int error = ::connect(fd, &where.any, where.size) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

}  // namespace

Result<ListenAddress> ParseListenAddress(std::string_view text) {
  ListenAddress address;
  address.grpc = text;
  if (text.starts_with(kUnix)) {
    address.path = text.substr(kUnix.size());
    const size_t most = sizeof(sockaddr_un::sun_path) - 1;
    if (address.path.empty() || address.path.size() > most) {
      return InvalidArgumentError("the path of a Unix socket has 1 to " + std::to_string(most) +
                                  " bytes");
    }
    return address;
  }
  SocketAddress ip;
  if (!ParseIp(text, &ip)) {
    return InvalidArgumentError(
        "unix:PATH, 127.0.0.1:PORT, [::1]:PORT or another address by its numbers, with a port from "
        "1 to 65535");
  }
  address.remote = !IsLoopback(ip);
  return address;
}

SocketAddress ToSocketAddress(const ListenAddress& address) {
  SocketAddress out;
  if (address.path.empty()) {
    ParseIp(address.grpc, &out);
    return out;
  }
  std::memset(&out, 0, sizeof out);
  out.unix_path.sun_family = AF_UNIX;
  std::memcpy(static_cast<char*>(out.unix_path.sun_path), address.path.data(), address.path.size());
  out.size = sizeof out.unix_path;
  return out;
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
