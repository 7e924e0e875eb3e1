// Between the bytes of a call and Protobuf's messages.
// Called by: the handlers. Memory: none kept.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "storage/base/status.h"

namespace thimble {

// A string of a message, or a message that has some: for naming what is not UTF-8. (The lite
// runtime knows no names: it says that a message cannot be parsed, and no more.)
struct StringField {
  uint32_t number;
  std::string_view name;
  bool repeated = false;
  std::span<const StringField> inside = {};  // empty: a string
};

// Parses `bytes`. INVALID_ARGUMENT naming the string that is not UTF-8, with the place and value of
// its first such byte; or saying that the bytes are no such message.
Status ParseMessage(const grpc::ByteBuffer& bytes, std::span<const StringField> strings,
                    google::protobuf::MessageLite* message);

grpc::ByteBuffer ToBytes(const google::protobuf::MessageLite& message);

}  // namespace thimble
