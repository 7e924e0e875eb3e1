// Where the daemon listens: a Unix socket, or a port of an IP address. There is no authentication,
// so addresses that other machines reach are marked: the options want --allow-remote for them.
// Called by: the options, the servers, the client. Memory: none.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <string_view>

#include "storage/base/status.h"

namespace thimble {

struct ListenAddress {
  std::string path;     // of a Unix socket; empty: an IP address
  std::string grpc;     // as gRPC wants it: "unix:/run/thimble/thimble.sock", "127.0.0.1:7070"
  bool remote = false;  // neither a Unix socket nor of the loopback interface
};

// "unix:PATH", "127.0.0.1:PORT", "[::1]:PORT" or another address by its numbers; INVALID_ARGUMENT
// saying so for anything else.
Result<ListenAddress> ParseListenAddress(std::string_view text);

// As the operating system has it.
struct SocketAddress {
  union {
    sockaddr any;
    sockaddr_un unix_path;
    sockaddr_in v4;
    sockaddr_in6 v6;
  };
  socklen_t size;
};
// Of one that ParseListenAddress let through.
SocketAddress ToSocketAddress(const ListenAddress& address);

// Connects to `address` and closes at once: OK when something listens there. The error has the
// operating system's reason (NOT_FOUND: no such socket; UNAVAILABLE: connection refused).
Status TestConnect(const ListenAddress& address);

// Makes room for a Unix socket at `address`: its directory is created (0755) where only that is
// missing, a socket that nothing answers on is removed. FAILED_PRECONDITION where a daemon answers
// or the path is something other than a socket. Does nothing for an IP address.
Status PrepareSocket(const ListenAddress& address);

}  // namespace thimble
