#include "daemon/rpc/server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/convert.h"

namespace thimble {
namespace {

// The other fields of the largest request: 8 stop strings, the name, ids of 5 bytes for each token.
constexpr uint64_t kMessageSlack = 64 << 10;
constexpr uint64_t kMaxMessageBytes = 1 << 20;
// Clients that may wait to be accepted; they do for a fraction of a second (connections.h).
constexpr int kBacklog = 128;
constexpr int kIdleConnectionMs = 30'000;
constexpr int kConnectionBuffer = 8 << 10;  // gRPC's own choice is 64 KiB and more a connection
// For the buffers of all connections; past it gRPC refuses streams (RESOURCE_EXHAUSTED).
constexpr size_t kQuotaBytes = 2 << 20;

}  // namespace

RpcServer::RpcServer(const RpcServerOptions& options, const RpcServices& services)
    : address_(options.address),
      context_{.services = services,
               .max_streams = options.max_streams,
               .max_events = options.max_events,
               .max_request_bytes = static_cast<uint32_t>(
                   std::min(kMaxMessageBytes, MaxPromptBytes(services) + kMessageSlack)),
               .reflection = options.reflection,
               .service = {},
               .stopping = {},
               .not_ready = {}} {
  context_.chat = std::make_unique<const Result<ChatTemplate>>(
      ChatTemplate::Open(services.model, services.tokenizer));
}

Result<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                    const RpcServices& services) {
  std::unique_ptr<RpcServer> server(new RpcServer(options, services));
  THIMBLE_RETURN_IF_ERROR(server->Bind(options.max_connections));
  Call::Await(server->context_);
  return server;
}

Status RpcServer::Bind(uint32_t max_connections) {
  grpc::ServerBuilder builder;
  builder.RegisterAsyncGenericService(&context_.service);
  builder.SetMaxReceiveMessageSize(static_cast<int>(context_.max_request_bytes));
  builder.SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
  builder.SetResourceQuota(grpc::ResourceQuota("thimble").Resize(kQuotaBytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             static_cast<int>(context_.max_streams));
  // A connection without a call gives its place to one that waits.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleConnectionMs);
  // Nobody asks for gRPC's own account of its connections.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, kConnectionBuffer);
  builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kConnectionBuffer);
  builder.AddChannelArgument(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, 256);
  builder.AddChannelArgument(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, 4 * kConnectionBuffer);
  queue_ = builder.AddCompletionQueue();
  context_.queue = queue_.get();
  THIMBLE_ASSIGN_OR_RETURN(const int listener,
                           Listen(address_, kBacklog, "gRPC", "choose another with --listen"));
  connections_ = std::make_unique<RpcConnections>(listener, max_connections);
  context_.connections = connections_.get();
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return InternalError("start the gRPC server: its own message is in the log");
  }
  return {};
}

RpcServer::~RpcServer() {
  if (server_ != nullptr) {
    if (context_.stopping.empty()) BeginShutdown("the daemon is stopping");
    if (!drained()) CancelAll();
    while (!drained()) Poll(std::chrono::milliseconds(100));
    server_->Shutdown();  // all is over: returns at once
  }
  if (queue_ != nullptr) {
    queue_->Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_->Next(&tag, &ok)) static_cast<Tag*>(tag)->Complete(ok);
  }
  if (connections_ != nullptr && !address_.path.empty()) ::unlink(address_.path.c_str());
}

void RpcServer::Tick() {
  const CallHandler::Clock::time_point now = CallHandler::Clock::now();
  for (CallHandler* ticker : context_.tickers) ticker->OnTick(now);
}

int RpcServer::AwaitsFirst() const {
  return context_.tickers.empty() ? connections_->AwaitsFirst() : -1;
}

size_t RpcServer::Poll(std::chrono::milliseconds wait) {
  connections_->Update(*server_);
  if (!context_.tickers.empty()) Tick();
  gpr_timespec deadline = gpr_time_0(GPR_CLOCK_MONOTONIC);  // long past: do not sleep
  if (wait.count() > 0) {
    deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                            gpr_time_from_millis(wait.count(), GPR_TIMESPAN));
  }
  for (size_t n = 0; n < kMaxBatch; ++n) {
    void* tag = nullptr;
    bool ok = false;
    if (queue_->AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) return n;
    static_cast<Tag*>(tag)->Complete(ok);
    deadline = gpr_time_0(GPR_CLOCK_MONOTONIC);
  }
  return kMaxBatch;
}

void RpcServer::BeginShutdown(const std::string& why) {
  if (!context_.stopping.empty()) return;
  context_.stopping = why;
  connections_->StopListening();
  for (CallHandler* ticker : context_.tickers) ticker->OnStop();
  grpc_server_shutdown_and_notify(server_->c_server(), queue_->cq(), &shutdown_tag_);
}

void RpcServer::CancelAll() { grpc_server_cancel_all_calls(server_->c_server()); }

void PrepareGrpc() {
  ::unsetenv("GRPC_VERBOSITY");
  ::unsetenv("GRPC_TRACE");
  // With tcp_read_chunks, gRPC 1.51's default, a connection allocates twice what its last burst
  // brought before it reads on, and GRPC_ARG_TCP_*_CHUNK_SIZE count for nothing: a message of
  // 4 MiB, refused, left an idle connection that asked for 8 MiB, was over the quota, and was
  // closed while its client still wrote.
  ::setenv("GRPC_EXPERIMENTS", "-tcp_read_chunks", /*overwrite=*/1);
  google::protobuf::SetLogHandler(nullptr);  // it would tell of every string that is not UTF-8
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
  gpr_set_log_function([](gpr_log_func_args* args) {
    if (args->severity != GPR_LOG_SEVERITY_ERROR) return;
    LogLine(LogLevel::kWarning, "grpc").Add("message", args->message);
  });
}

}  // namespace thimble
