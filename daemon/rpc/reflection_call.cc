#include "daemon/rpc/reflection_call.h"

#include <array>
#include <string>
#include <string_view>

#include "daemon/rpc/message.h"
#include "daemon/rpc/wire.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "proto/descriptors.h"

namespace thimble {
namespace {

using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

constexpr std::array kExtensionStrings = {StringField{.number = 1, .name = "containing_type"}};
constexpr std::array kStrings = {
    StringField{.number = 1, .name = "host"},
    StringField{.number = 3, .name = "file_by_filename"},
    StringField{.number = 4, .name = "file_containing_symbol"},
    StringField{.number = 5, .name = "file_containing_extension", .inside = kExtensionStrings},
    StringField{.number = 6, .name = "all_extension_numbers_of_type"},
    StringField{.number = 7, .name = "list_services"}};

// Field numbers of google/protobuf/descriptor.proto: never change these values.
constexpr uint32_t kSetFile = 1;
constexpr uint32_t kFilePackage = 2;
constexpr uint32_t kFileMessage = 4;
constexpr uint32_t kFileEnum = 5;
constexpr uint32_t kFileService = 6;
constexpr uint32_t kName = 1;  // of a message, an enum, a service, a field, ...
constexpr uint32_t kMessageField = 2;
constexpr uint32_t kMessageNested = 3;
constexpr uint32_t kMessageEnum = 4;
constexpr uint32_t kEnumValue = 2;
constexpr uint32_t kServiceMethod = 2;

std::string_view Field(std::string_view message, uint32_t wanted) {
  std::string_view found;
  ForEachBytesField(message, [&](uint32_t number, std::string_view value) {
    if (number == wanted) found = value;
    return number != wanted;
  });
  return found;
}

// Visits the full names of what `file`, a FileDescriptorProto, defines; `service` tells services.
// Stops, and returns true, when visit does.
template <typename Visit>
bool AnyIn(std::string_view definition, const std::string& scope, uint32_t kind,
           const Visit& visit) {
  const std::string name = scope + "." + std::string(Field(definition, kName));
  if (visit(name, kind == kFileService)) return true;
  bool found = false;
  ForEachBytesField(definition, [&](uint32_t number, std::string_view inside) {
    if (kind == kFileMessage && (number == kMessageNested || number == kMessageEnum)) {
      const uint32_t inner = number == kMessageNested ? kFileMessage : kFileEnum;
      found = AnyIn(inside, name, inner, visit);
    } else if ((kind == kFileMessage && number == kMessageField) ||
               (kind == kFileService && number == kServiceMethod)) {
      found = visit(name + "." + std::string(Field(inside, kName)), false);
    } else if (kind == kFileEnum && number == kEnumValue) {  // a value is its enum's sibling
      found = visit(scope + "." + std::string(Field(inside, kName)), false);
    }
    return !found;
  });
  return found;
}
template <typename Visit>
bool AnySymbol(std::string_view file, const Visit& visit) {
  const std::string package(Field(file, kFilePackage));
  bool found = false;
  ForEachBytesField(file, [&](uint32_t number, std::string_view definition) {
    if (number == kFileMessage || number == kFileEnum || number == kFileService) {
      found = AnyIn(definition, package, number, visit);
    }
    return !found;
  });
  return found;
}

void SetError(StatusCode code, const std::string& message, ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(static_cast<int32_t>(code));
  response->mutable_error_response()->set_error_message(message);
}

// The first file that `matches`, or NOT_FOUND.
template <typename Matches>
void AnswerFile(const std::string& what, const Matches& matches,
                ServerReflectionResponse* response) {
  for (const EmbeddedDescriptor& embedded : EmbeddedDescriptors()) {
    const std::string_view file = Field(embedded.set, kSetFile);
    if (!matches(embedded.name, file)) continue;
    response->mutable_file_descriptor_response()->add_file_descriptor_proto(file.data(),
                                                                            file.size());
    return;
  }
  SetError(StatusCode::kNotFound, "there is no " + what, response);
}

void Answer(const ServerReflectionRequest& request, ServerReflectionResponse* response) {
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kListServices:
      response->mutable_list_services_response();
      for (const EmbeddedDescriptor& embedded : EmbeddedDescriptors()) {
        AnySymbol(Field(embedded.set, kSetFile), [&](const std::string& name, bool service) {
          if (service) response->mutable_list_services_response()->add_service()->set_name(name);
          return false;
        });
      }
      return;
    case ServerReflectionRequest::kFileByFilename:
      AnswerFile(
          "file " + request.file_by_filename(),
          [&](std::string_view name, std::string_view) {
            return name == request.file_by_filename();
          },
          response);
      return;
    case ServerReflectionRequest::kFileContainingSymbol:
      AnswerFile(
          "symbol " + request.file_containing_symbol(),
          [&](std::string_view, std::string_view file) {
            return AnySymbol(file, [&](const std::string& name, bool) {
              return name == request.file_containing_symbol();
            });
          },
          response);
      return;
    case ServerReflectionRequest::kFileContainingExtension:
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      SetError(StatusCode::kNotFound, "there are no extensions", response);
      return;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      break;
  }
  SetError(StatusCode::kInvalidArgument, "message_request: one of its fields must be set",
           response);
}

}  // namespace

ReflectionCall::ReflectionCall(Call& call) : CallHandler(call) {
  ++call_.context().reflection_calls;
}

ReflectionCall::~ReflectionCall() { --call_.context().reflection_calls; }

Status ReflectionCall::OnMessage(const grpc::ByteBuffer& message) {
  if (call_.context().reflection_calls > kMaxCalls) {
    return ResourceExhaustedError(std::to_string(kMaxCalls) + " reflection calls are open already");
  }
  ServerReflectionRequest request;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(message, kStrings, &request));
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  Answer(request, &response);
  call_.Send(ToBytes(response));
  return {};
}

}  // namespace thimble
