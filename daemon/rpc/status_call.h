// One GetStatus call: await, answer, delete itself.
// Called by: the completion queue. Memory: about 2 KiB.
#pragma once

#include "daemon/rpc/context.h"
#include "daemon/rpc/tag.h"

namespace thimble {

class StatusCall {
 public:
  // Waits for the next client.
  static void Await(RpcContext& context);

 private:
  explicit StatusCall(RpcContext& context) : context_(context) { ++context_.calls; }
  ~StatusCall() { --context_.calls; }

  void Accepted(bool ok);
  void Finished(bool ok);

  RpcContext& context_;
  grpc::ServerContext call_;
  v1::GetStatusRequest request_;
  grpc::ServerAsyncResponseWriter<v1::GetStatusResponse> writer_{&call_};
  MemberTag<StatusCall> accepted_{this, &StatusCall::Accepted};
  MemberTag<StatusCall> finished_{this, &StatusCall::Finished};
};

}  // namespace thimble
