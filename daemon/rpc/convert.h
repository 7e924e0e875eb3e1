// Between the API's messages and the daemon's own types. Called by: the calls. Memory: none kept.
#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <optional>
#include <string>

#include "daemon/rpc/context.h"

namespace thimble {

// Bytes of a prompt for each token of the context: three or four are usual, and a bound keeps the
// time of tokenizing bounded.
inline constexpr uint32_t kPromptBytesPerToken = 64;

// The most bytes of a prompt, or of a conversation's messages together.
inline size_t MaxPromptBytes(const RpcServices& services) {
  return size_t{kPromptBytesPerToken} * services.context_tokens;
}

v1::GenerateEvent QueuedEvent(uint32_t position, double estimated_wait_seconds);
v1::GenerateEvent StartedEvent(uint32_t prompt_tokens, uint32_t cached_prompt_tokens,
                               uint64_t seed);
v1::GenerateEvent PromptProgressEvent(uint32_t done, uint32_t total);
v1::GenerateEvent TokenEvent(uint32_t index, TokenId id, const std::string& text,
                             std::optional<float> log_probability);
v1::GenerateEvent DoneEvent(const RequestResult& result, const std::string& tail);

v1::GetStatusResponse ToMessage(const DaemonStatus& status);

// Why no requests are served, "stopping: ..." or "frozen: ..."; empty: they are.
std::string NotReady(const RpcContext& context);

// Messages are cut to 2 KiB: they travel in a header, and headers are bounded (8 KiB).
grpc::Status ToGrpcStatus(const Status& status);

}  // namespace thimble
