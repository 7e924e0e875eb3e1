// Walking a message of Protobuf's without knowing its type: the lite runtime cannot.
// Called by: message.cc, reflection.cc. Memory: none.
#pragma once

#include <google/protobuf/io/coded_stream.h>

#include <cstdint>
#include <string_view>

namespace thimble {

// Calls visit(field number, value) for every string, bytes or message field of `message`, in order,
// until it returns false or the message ends, or what follows is no field.
template <typename Visit>
void ForEachBytesField(std::string_view message, const Visit& visit) {
  // The wire types of Protobuf's encoding: never change these values.
  constexpr uint32_t kVarint = 0;
  constexpr uint32_t kFixed64 = 1;
  constexpr uint32_t kBytes = 2;
  constexpr uint32_t kFixed32 = 5;
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(message.data()),
                                            static_cast<int>(message.size()));
  while (const uint32_t tag = in.ReadTag()) {
    uint64_t ignored = 0;
    uint32_t length = 0;
    switch (tag & 7U) {
      case kVarint:
        if (!in.ReadVarint64(&ignored)) return;
        continue;
      case kFixed64:
        if (!in.Skip(8)) return;
        continue;
      case kFixed32:
        if (!in.Skip(4)) return;
        continue;
      case kBytes:
        break;
      default:
        return;
    }
    if (!in.ReadVarint32(&length)) return;
    const auto at = static_cast<size_t>(in.CurrentPosition());
    if (length > message.size() - at || !in.Skip(static_cast<int>(length))) return;
    if (!visit(tag >> 3U, message.substr(at, length))) return;
  }
}

}  // namespace thimble
