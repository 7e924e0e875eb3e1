// The gRPC server on the daemon's one thread: a socket, one completion queue, and the calls' tags.
//
//   Start -> Poll ... Poll -> BeginShutdown -> Poll ... Poll -> drained() -> destruction
//
// gRPC's own Server::Shutdown would block this thread while a stream lives; so the core's
// grpc_server_shutdown_and_notify reports to our own queue while the loop goes on.
// Called by: main, the event loop. Memory: gRPC's, held down by small buffers and a quota of 2 MiB
// for all connections, and the calls. (An idle thimbled with the built-in model, everything
// counted: 1.4 MB anonymous and 9.1 MB file-backed.)
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "daemon/rpc/connections.h"
#include "daemon/rpc/context.h"
#include "daemon/rpc/listen_address.h"
#include "daemon/rpc/tag.h"

namespace thimble {

struct RpcServerOptions {
  ListenAddress address;
  uint32_t max_streams = 128;     // open Generate calls
  uint32_t max_events = 16;       // waiting for one slow client
  uint32_t max_connections = 32;  // with calls that last (connections.h)
  bool reflection = false;        // tells clients what there is (grpcurl, grpcui)
};

class RpcServer {
 public:
  // Binds (a Unix socket gets mode 0660) and listens. FAILED_PRECONDITION where another daemon
  // answers.
  static Result<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                  const RpcServices& services);
  // Removes the socket. A server that is not drained is cancelled and drained first: that takes as
  // long as gRPC needs.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // Handles what has completed, at most kMaxBatch events, and returns their number. Sleeps up to
  // `wait` for the first one, which a connection that waits to be accepted is not.
  size_t Poll(std::chrono::milliseconds wait);
  // The listening socket while nothing but a first connection can come: to be waited for beside
  // what else the caller waits for, instead of in Poll. Else -1. Must not be used after
  // BeginShutdown, which closes it.
  [[nodiscard]] int AwaitsFirst() const;
  static constexpr size_t kMaxBatch = 64;

  // Accepts nothing more: new calls are refused with UNAVAILABLE(`why`). Calls that are open must
  // be ended by the scheduler (Suspend); the rest is cut off by CancelAll.
  void BeginShutdown(const std::string& why);
  void CancelAll();  // after BeginShutdown
  // Why no request gets on; empty: they do. Readiness in grpc.health.v1 and GetStatus.
  void SetNotReady(const std::string& why) { context_.not_ready = why; }
  // After BeginShutdown: every call and every connection is gone.
  [[nodiscard]] bool drained() const { return notified_ && context_.calls == 0; }

 private:
  // The core's own events need a tag of the C++ layer's kind around ours.
  class ShutdownTag final : public grpc::internal::CompletionQueueTag {
   public:
    explicit ShutdownTag(Tag* tag) : tag_(tag) {}
    bool FinalizeResult(void** tag, bool* /*ok*/) override {
      *tag = tag_;
      return true;
    }

   private:
    Tag* const tag_;
  };

  RpcServer(const RpcServerOptions& options, const RpcServices& services);
  Status Bind(uint32_t max_connections);
  void Tick();
  void ShutdownNotified(bool /*ok*/) { notified_ = true; }

  const ListenAddress address_;
  RpcContext context_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<RpcConnections> connections_;
  MemberTag<RpcServer> notified_tag_{this, &RpcServer::ShutdownNotified};
  ShutdownTag shutdown_tag_{&notified_tag_};
  bool notified_ = false;
};

// Makes gRPC's own log lines ours (errors only, as warnings), and sets what it takes from the
// environment, which then cannot change it under us. Once, before anything else of gRPC's.
void PrepareGrpc();

}  // namespace thimble
