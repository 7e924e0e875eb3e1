// The methods that answer at once, from the bytes of the request to those of the response. Errors
// are the proto's: its comments are the reference.
// Called by: methods.cc. Memory: request and response while it answers (answers.cc, tokenize.cc).
#pragma once

#include "daemon/rpc/context.h"

namespace thimble {

Status AnswerGetStatus(RpcContext& context, const grpc::ByteBuffer& request,
                       grpc::ByteBuffer* response);
Status AnswerGetModel(RpcContext& context, const grpc::ByteBuffer& request,
                      grpc::ByteBuffer* response);
Status AnswerGetPlan(RpcContext& context, const grpc::ByteBuffer& request,
                     grpc::ByteBuffer* response);
Status AnswerTokenize(RpcContext& context, const grpc::ByteBuffer& request,
                      grpc::ByteBuffer* response);
Status AnswerDetokenize(RpcContext& context, const grpc::ByteBuffer& request,
                        grpc::ByteBuffer* response);

// GetStatus's response now.
v1::GetStatusResponse StatusMessage(const RpcContext& context);

}  // namespace thimble
