// Where the daemon listens: a Unix socket, or a port of the loopback interface. There is no
// authentication, so nothing else is accepted.
// Called by: the options, the RPC server. Memory: none.
#pragma once

#include <string>
#include <string_view>

#include "storage/base/status.h"

namespace thimble {

struct ListenAddress {
  std::string path;  // of a Unix socket; empty: loopback
  std::string grpc;  // as gRPC wants it: "unix:/run/thimble/thimble.sock", "127.0.0.1:7070"
};

// "unix:PATH", "127.0.0.1:PORT", "[::1]:PORT"; INVALID_ARGUMENT saying so for anything else.
Result<ListenAddress> ParseListenAddress(std::string_view text);

// Connects to `address` and closes at once: OK when something listens there. The error has the
// operating system's reason (NOT_FOUND: no such socket; UNAVAILABLE: connection refused).
Status TestConnect(const ListenAddress& address);

// Makes room for a Unix socket at `address`: its directory is created (0755) where only that is
// missing, a socket that nothing answers on is removed. FAILED_PRECONDITION where a daemon answers
// or the path is something other than a socket. Does nothing for loopback.
Status PrepareSocket(const ListenAddress& address);

}  // namespace thimble
