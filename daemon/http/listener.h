// A listening socket for HTTP: a Unix socket (mode 0660), or a port of the loopback interface.
// Called by: HttpServer. Memory: none.
#pragma once

#include "daemon/rpc/listen_address.h"
#include "storage/base/status.h"

namespace thimble {

// The descriptor: listening, non-blocking, the caller's to close. The error names the address; a
// port that is taken is UNAVAILABLE, a Unix socket that answers FAILED_PRECONDITION.
Result<int> Listen(const ListenAddress& address);

}  // namespace thimble
