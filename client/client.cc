#include "client/client.h"

#include <chrono>
#include <utility>

#include "daemon/rpc/listen_address.h"

namespace thimble {
namespace {

constexpr std::chrono::seconds kStatusDeadline{10};  // a stage takes a quarter of a second at most

Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return {};
  const int code = status.error_code();
  // UNAUTHENTICATED has no counterpart here: thimbled never sends it.
  return {code > 15 ? StatusCode::kUnknown : static_cast<StatusCode>(code), status.error_message()};
}

}  // namespace

Result<Client> Client::Connect(const std::string& address) {
  Result<ListenAddress> parsed = ParseListenAddress(address);
  if (!parsed.ok()) {
    return InvalidArgumentError("connect to \"" + address + "\": " + parsed.status().message());
  }
  // gRPC would say "failed to connect to all addresses" for every reason there is.
  THIMBLE_RETURN_IF_ERROR(TestConnect(*parsed));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Without it, channels of one process would share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return Client(
      grpc::CreateCustomChannel(parsed->grpc, grpc::InsecureChannelCredentials(), arguments));
}

Status Client::Generate(const v1::GenerateRequest& request, grpc::ClientContext& context,
                        const OnEvent& on_event) {
  const std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> reader =
      stub_->Generate(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
    if (on_event(event)) continue;
    context.TryCancel();
    break;
  }
  return FromGrpc(reader->Finish());
}

Result<v1::GetStatusResponse> Client::GetStatus() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kStatusDeadline);
  v1::GetStatusResponse response;
  THIMBLE_RETURN_IF_ERROR(FromGrpc(stub_->GetStatus(&context, {}, &response)));
  return response;
}

}  // namespace thimble
