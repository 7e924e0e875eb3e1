#include "daemon/rpc/reflection_call.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

// One call with several questions.
class Conversation {
 public:
  explicit Conversation(const FakeDaemon& daemon)
      : stub_(ServerReflection::NewStub(
            grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials()))) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    stream_ = stub_->ServerReflectionInfo(&context_);
  }
  ServerReflectionResponse Ask(const ServerReflectionRequest& request) {
    ServerReflectionResponse response;
    EXPECT_TRUE(stream_->Write(request));
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }
  ServerReflectionResponse AskSymbol(const std::string& symbol) {
    ServerReflectionRequest request;
    request.set_file_containing_symbol(symbol);
    return Ask(request);
  }
  grpc::Status End() {
    stream_->WritesDone();
    return stream_->Finish();
  }

 private:
  std::unique_ptr<ServerReflection::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<ServerReflectionRequest, ServerReflectionResponse>>
      stream_;
};

TEST(ReflectionCall, TellsServicesFilesAndSymbols) {
  FakeDaemon daemon;
  daemon.options.reflection = true;
  daemon.Start();
  Conversation asked(daemon);
  ServerReflectionRequest request;
  request.set_list_services("*");
  const ServerReflectionResponse services = asked.Ask(request);
  std::vector<std::string> names;
  for (const auto& service : services.list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"thimble.v1.Thimble", "grpc.health.v1.Health",
                                             "grpc.reflection.v1alpha.ServerReflection"}));
  request.set_file_by_filename("thimble/v1/thimble.proto");
  const ServerReflectionResponse file = asked.Ask(request);
  ASSERT_EQ(file.file_descriptor_response().file_descriptor_proto_size(), 1);
  const std::string& descriptor = file.file_descriptor_response().file_descriptor_proto(0);
  // A FileDescriptorProto begins with its name: field 1, 24 bytes.
  EXPECT_EQ(descriptor.substr(0, 26), "\x0a\x18thimble/v1/thimble.proto");
  for (const char* symbol : {"thimble.v1.Thimble", "thimble.v1.Thimble.Chat",
                             "thimble.v1.GenerateRequest", "thimble.v1.GenerateRequest.prompt",
                             "thimble.v1.FinishReason", "thimble.v1.FINISH_REASON_STOP"}) {
    const ServerReflectionResponse found = asked.AskSymbol(symbol);
    ASSERT_EQ(found.file_descriptor_response().file_descriptor_proto_size(), 1) << symbol;
    EXPECT_EQ(found.file_descriptor_response().file_descriptor_proto(0), descriptor) << symbol;
    EXPECT_EQ(found.original_request().file_containing_symbol(), symbol);
  }
  EXPECT_EQ(asked.AskSymbol("grpc.health.v1.HealthCheckResponse.ServingStatus")
                .file_descriptor_response()
                .file_descriptor_proto_size(),
            1);
  for (const char* symbol : {"thimble.v1", "thimble.v1.Nothing", "", "thimble.v1.Thimble.Sing"}) {
    EXPECT_EQ(asked.AskSymbol(symbol).error_response().error_code(), 5) << symbol;
  }
  EXPECT_EQ(asked.Ask({}).error_response().error_code(), 3);
  EXPECT_TRUE(asked.End().ok());
}

TEST(ReflectionCall, IsOffUnlessAskedFor) {
  FakeDaemon daemon;
  daemon.Start();
  Conversation asked(daemon);
  const grpc::Status status = asked.End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(status.error_message().find("--reflection"), std::string::npos);
}

}  // namespace
}  // namespace thimble
