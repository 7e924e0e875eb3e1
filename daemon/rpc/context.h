// What the calls of a server share. Owned by RpcServer; one thread.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "daemon/model/chat_template.h"
#include "daemon/model/model.h"
#include "daemon/model/tokenizer.h"
#include "daemon/plan/plan.h"
#include "daemon/queue/scheduler.h"
#include "daemon/status.h"
#include "thimble/v1/thimble.pb.h"

namespace thimble {

class CallHandler;
class RpcConnections;

// What the service speaks for. Everything must outlive the server.
struct RpcServices {
  Scheduler& scheduler;
  Tokenizer& tokenizer;
  const StatusSource& status;
  const Model& model;
  const Plan& plan;
  uint32_t context_tokens;  // of one request
};

struct RpcContext {
  RpcServices services;
  uint32_t max_streams;  // Generate and Chat calls that may be open; one more: RESOURCE_EXHAUSTED
  uint32_t max_events;  // waiting to be sent to one client before its request is left out of passes
  uint32_t max_request_bytes;
  bool reflection;  // is served

  grpc::AsyncGenericService service;
  grpc::ServerCompletionQueue* queue = nullptr;
  RpcConnections* connections = nullptr;
  std::unique_ptr<const Result<ChatTemplate>> chat = {};  // the model's, or why there is none
  std::string stopping;                                   // why; empty: not stopping
  std::string not_ready;          // why no request gets on, the daemon's stop aside; empty: they do
  uint32_t calls = 0;             // call objects, the one that waits for a client included
  uint32_t streams = 0;           // of these, Generate and Chat calls with a request
  uint32_t status_watchers = 0;   // of these, WatchStatus
  uint32_t health_watchers = 0;   // of these, Health.Watch
  uint32_t reflection_calls = 0;  // of these
  size_t bytes_outstanding = 0;   // being written, of all calls
  std::vector<CallHandler*> tickers = {};  // told every turn of the loop, and the stop
};

}  // namespace thimble
