// What the calls of a server share. Owned by RpcServer; one thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/model/tokenizer.h"
#include "daemon/queue/scheduler.h"
#include "daemon/status.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "thimble/v1/thimble.grpc.pb.h"

namespace thimble {

class HealthWatchCall;

// What the service speaks for. Everything must outlive the server.
struct RpcServices {
  Scheduler& scheduler;
  Tokenizer& tokenizer;
  const StatusSource& status;
  uint32_t context_tokens;  // of one request
};

struct RpcContext {
  RpcServices services;
  uint32_t max_streams;  // Generate calls that may be open; one more is RESOURCE_EXHAUSTED
  uint32_t max_events;  // waiting to be sent to one client before its request is left out of passes

  v1::Thimble::AsyncService service;
  grpc::health::v1::Health::AsyncService health;
  grpc::ServerCompletionQueue* queue = nullptr;
  std::string stopping;  // why; empty: not stopping
  uint32_t calls = 0;    // call objects, those that wait for a client included
  uint32_t streams = 0;  // of these, Generate calls with a client
  std::vector<HealthWatchCall*> watchers = {};  // of these, Watch calls with a client
};

}  // namespace thimble
