#include "daemon/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

namespace thimble {
namespace {

union Endpoint {
  sockaddr any;
  sockaddr_un unix_path;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

// `address` has been parsed: it is what ParseListenAddress lets through. Returns the size.
socklen_t Fill(const ListenAddress& address, Endpoint* endpoint) {
  std::memset(endpoint, 0, sizeof *endpoint);
  if (!address.path.empty()) {
    endpoint->unix_path.sun_family = AF_UNIX;
    std::memcpy(static_cast<char*>(endpoint->unix_path.sun_path), address.path.data(),
                address.path.size());
    return sizeof endpoint->unix_path;
  }
  const std::string_view text = address.grpc;
  const std::string_view digits = text.substr(text.rfind(':') + 1);
  uint16_t port = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (text.starts_with('[')) {
    endpoint->v6.sin6_family = AF_INET6;
    endpoint->v6.sin6_port = htons(port);
    endpoint->v6.sin6_addr = in6addr_loopback;
    return sizeof endpoint->v6;
  }
  endpoint->v4.sin_family = AF_INET;
  endpoint->v4.sin_port = htons(port);
  endpoint->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return sizeof endpoint->v4;
}

// 0 or errno.
int BindAndListen(int fd, const Endpoint& endpoint, socklen_t size, int backlog) {
  // Ports in TIME_WAIT alone: one that another program listens on is still refused.
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const mode_t mask = ::umask(0117);  // a Unix socket is for its owner and its group
  const int bound = ::bind(fd, &endpoint.any, size);
  const int bind_error = errno;
  ::umask(mask);
  if (bound != 0) return bind_error;
  return ::listen(fd, backlog) == 0 ? 0 : errno;
}

}  // namespace

Result<int> Listen(const ListenAddress& address, int backlog, std::string_view purpose,
                   std::string_view advice) {
  const std::string what = "listen on " + address.grpc + " for " + std::string(purpose);
  THIMBLE_RETURN_IF_ERROR(PrepareSocket(address));
  Endpoint endpoint;
  const socklen_t size = Fill(address, &endpoint);
  const int fd = ::socket(endpoint.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return ErrnoError(errno, what);
  if (const int error = BindAndListen(fd, endpoint, size, backlog); error != 0) {
    ::close(fd);
    const Status status = ErrnoError(error, what);
    if (error != EADDRINUSE) return status;
    return Status(status.code(), status.message() + "; " + std::string(advice));
  }
  return fd;
}

}  // namespace thimble
