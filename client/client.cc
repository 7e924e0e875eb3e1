#include "client/client.h"

#include <chrono>
#include <utility>

#include "daemon/rpc/listen_address.h"

namespace thimble {
namespace {

// A stage takes a quarter of a second at most, so the daemon answers far sooner.
constexpr std::chrono::seconds kDeadline{10};
constexpr std::chrono::seconds kTokenizeDeadline{60};  // a long text on a slow machine

// What no daemon accepts (its own limit, GetModelResponse.max_request_bytes, may be less). Refused
// here with both numbers: gRPC would reset the stream before the daemon could say anything.
constexpr size_t kMaxRequestBytes = 1 << 20;

Status CheckSize(const google::protobuf::MessageLite& request) {
  const size_t bytes = request.ByteSizeLong();
  if (bytes <= kMaxRequestBytes) return {};
  return ResourceExhaustedError("the request has " + std::to_string(bytes) + " bytes: at most " +
                                std::to_string(kMaxRequestBytes));
}

Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return {};
  const int code = status.error_code();
  // What gRPC says, instead of UNAVAILABLE, where a connection breaks at an unlucky moment.
  if (code == grpc::StatusCode::UNKNOWN && status.error_message() == "Stream removed") {
    return UnavailableError("the connection to the daemon was lost");
  }
  if (code == grpc::StatusCode::UNAVAILABLE && status.error_message() == "Socket closed") {
    return UnavailableError("the connection to the daemon was lost");
  }
  // UNAUTHENTICATED has no counterpart here: thimbled never sends it.
  return {code > 15 ? StatusCode::kUnknown : static_cast<StatusCode>(code), status.error_message()};
}

void SetDeadline(grpc::ClientContext& context, std::chrono::seconds seconds) {
  context.set_deadline(std::chrono::system_clock::now() + seconds);
}

// Reads a stream to its end, or until `on_message` has enough.
template <typename Message, typename OnMessage>
Status ReadAll(grpc::ClientReader<Message>& reader, grpc::ClientContext& context,
               const OnMessage& on_message) {
  Message message;
  while (reader.Read(&message)) {
    if (on_message(message)) continue;
    context.TryCancel();
    break;
  }
  return FromGrpc(reader.Finish());
}

}  // namespace

Result<Client> Client::Connect(const std::string& address) {
  Client client(address);
  THIMBLE_RETURN_IF_ERROR(client.Reconnect());
  return client;
}

Status Client::Reconnect() {
  const Result<ListenAddress> parsed = ParseListenAddress(address_);
  if (!parsed.ok()) {
    return InvalidArgumentError("connect to \"" + address_ + "\": " + parsed.status().message());
  }
  // gRPC would say "failed to connect to all addresses" for every reason there is.
  THIMBLE_RETURN_IF_ERROR(TestConnect(*parsed));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Without it, channels of one process would share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(parsed->grpc, grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::Thimble::NewStub(channel);
  health_ = grpc::health::v1::Health::NewStub(channel);
  return {};
}

Status Client::Generate(const v1::GenerateRequest& request, grpc::ClientContext& context,
                        const OnEvent& on_event) {
  THIMBLE_RETURN_IF_ERROR(CheckSize(request));
  const auto reader = stub_->Generate(&context, request);
  return ReadAll(*reader, context, on_event);
}

Status Client::Chat(const v1::ChatRequest& request, grpc::ClientContext& context,
                    const OnEvent& on_event) {
  THIMBLE_RETURN_IF_ERROR(CheckSize(request));
  const auto reader = stub_->Chat(&context, request);
  return ReadAll(*reader, context, on_event);
}

Result<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context, kTokenizeDeadline);
  v1::TokenizeResponse response;
  THIMBLE_RETURN_IF_ERROR(CheckSize(request));
  THIMBLE_RETURN_IF_ERROR(FromGrpc(stub_->Tokenize(&context, request, &response)));
  return response;
}

Result<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context, kTokenizeDeadline);
  v1::DetokenizeResponse response;
  THIMBLE_RETURN_IF_ERROR(FromGrpc(stub_->Detokenize(&context, request, &response)));
  return response;
}

Result<v1::GetModelResponse> Client::GetModel() {
  grpc::ClientContext context;
  SetDeadline(context, kDeadline);
  v1::GetModelResponse response;
  THIMBLE_RETURN_IF_ERROR(FromGrpc(stub_->GetModel(&context, {}, &response)));
  return response;
}

Result<v1::GetPlanResponse> Client::GetPlan(const v1::GetPlanRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context, kDeadline);
  v1::GetPlanResponse response;
  THIMBLE_RETURN_IF_ERROR(FromGrpc(stub_->GetPlan(&context, request, &response)));
  return response;
}

Result<v1::GetStatusResponse> Client::GetStatus() {
  grpc::ClientContext context;
  SetDeadline(context, kDeadline);
  v1::GetStatusResponse response;
  THIMBLE_RETURN_IF_ERROR(FromGrpc(stub_->GetStatus(&context, {}, &response)));
  return response;
}

Status Client::WatchStatus(double interval_seconds, grpc::ClientContext& context,
                           const OnStatus& on_status) {
  v1::WatchStatusRequest request;
  request.set_interval_seconds(interval_seconds);
  const auto reader = stub_->WatchStatus(&context, request);
  return ReadAll(*reader, context, on_status);
}

Result<bool> Client::IsServing(const std::string& service) {
  grpc::ClientContext context;
  SetDeadline(context, kDeadline);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  THIMBLE_RETURN_IF_ERROR(FromGrpc(health_->Check(&context, request, &response)));
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

}  // namespace thimble
