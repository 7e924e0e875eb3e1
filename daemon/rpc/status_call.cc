#include "daemon/rpc/status_call.h"

#include "daemon/rpc/convert.h"

namespace thimble {

void StatusCall::Await(RpcContext& context) {
  auto* call = new StatusCall(context);
  context.service.RequestGetStatus(&call->call_, &call->request_, &call->writer_, context.queue,
                                   context.queue, &call->accepted_);
}

void StatusCall::Accepted(bool ok) {
  if (!ok) {  // the server stops
    delete this;
    return;
  }
  if (context_.stopping.empty()) Await(context_);
  writer_.Finish(ToMessage(context_.services.status.Describe()), grpc::Status::OK, &finished_);
}

void StatusCall::Finished(bool /*ok*/) { delete this; }

}  // namespace thimble
