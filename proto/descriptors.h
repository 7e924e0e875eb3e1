// The API's .proto files as protoc describes them, for reflection: a
// google.protobuf.FileDescriptorSet of one file each. In the program's file; read into RAM when
// someone asks. Called by: daemon/rpc/reflection.cc.
#pragma once

#include <span>
#include <string_view>

namespace thimble {

struct EmbeddedDescriptor {
  std::string_view name;  // "thimble/v1/thimble.proto"
  std::string_view set;
};
std::span<const EmbeddedDescriptor> EmbeddedDescriptors();

}  // namespace thimble
