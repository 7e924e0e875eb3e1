// A listening socket, for gRPC and for HTTP: a Unix socket (mode 0660, of the group `thimble` where
// /etc/group has one), or a port of an IP address. Called by: RpcServer, HttpServer. Memory: none.
#pragma once

#include <string_view>

#include "daemon/rpc/listen_address.h"
#include "storage/base/status.h"

namespace thimble {

// The descriptor: listening, non-blocking, the caller's to close. At most `backlog` clients wait to
// be accepted. The error names the address and `purpose` ("HTTP"); a port that is taken is
// UNAVAILABLE with `advice`, a Unix socket that answers FAILED_PRECONDITION.
Result<int> Listen(const ListenAddress& address, int backlog, std::string_view purpose,
                   std::string_view advice);

}  // namespace thimble
