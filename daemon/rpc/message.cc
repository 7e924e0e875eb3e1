#include "daemon/rpc/message.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "daemon/rpc/utf8.h"
#include "daemon/rpc/wire.h"

namespace thimble {
namespace {

// The first string of `message` that is not UTF-8, in words; empty where there is none.
std::string FindBadString(std::string_view message, std::span<const StringField> strings,
                          const std::string& prefix) {
  std::vector<uint32_t> seen(strings.size());  // how often each field came
  std::string bad;
  ForEachBytesField(message, [&](uint32_t number, std::string_view value) {
    for (size_t i = 0; i < strings.size(); ++i) {
      if (strings[i].number != number) continue;
      std::string name = prefix + std::string(strings[i].name);
      if (strings[i].repeated) name += "[" + std::to_string(seen[i]++) + "]";
      if (!strings[i].inside.empty()) {
        bad = FindBadString(value, strings[i].inside, name + ".");
      } else if (const size_t place = ValidUtf8Bytes(value); place < value.size()) {
        std::array<char, 8> byte{};
        (void)std::snprintf(byte.data(), byte.size(), "0x%02x",
                            static_cast<unsigned>(static_cast<unsigned char>(value[place])));
        bad = name + ": byte " + std::to_string(place) + " (" + byte.data() +
              ") is not UTF-8; it must be";
      }
    }
    return bad.empty();
  });
  return bad;
}

}  // namespace

Status ParseMessage(const grpc::ByteBuffer& bytes, std::span<const StringField> strings,
                    google::protobuf::MessageLite* message) {
  grpc::ByteBuffer shared = bytes;  // Deserialize lets go of its buffer's slices
  if (grpc::GenericDeserialize<grpc::ProtoBufferReader, google::protobuf::MessageLite>(&shared,
                                                                                       message)
          .ok()) {
    return {};
  }
  std::vector<grpc::Slice> slices;
  std::string flat;
  if (bytes.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  std::string bad = FindBadString(flat, strings, "");
  if (bad.empty()) {
    bad =
        "the request's " + std::to_string(bytes.Length()) + " bytes are no message of this method";
  }
  return InvalidArgumentError(bad);
}

grpc::ByteBuffer ToBytes(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  const grpc::Slice slice(size);
  // A new slice is nobody else's yet.
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return {&slice, 1};
}

}  // namespace thimble
