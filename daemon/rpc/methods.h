// The methods that are served: their names, and what answers each. Called by: Call. Memory: none.
#pragma once

#include <memory>
#include <string>

#include "daemon/rpc/call.h"

namespace thimble {

// `method` as gRPC names it: "/thimble.v1.Thimble/Generate". UNIMPLEMENTED where there is no such
// one; RESOURCE_EXHAUSTED where clients leave too many answers unread.
Result<std::unique_ptr<CallHandler>> MakeHandler(const std::string& method, Call& call);

}  // namespace thimble
