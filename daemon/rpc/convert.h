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

// Checks every field and tokenizes the prompt. INVALID_ARGUMENT names the field, its value and its
// range; OUT_OF_RANGE: a prompt of more bytes than the context could hold.
Result<GenerationRequest> ToGenerationRequest(const v1::GenerateRequest& message,
                                              const RpcServices& services);

v1::GenerateEvent QueuedEvent(uint32_t position);
v1::GenerateEvent StartedEvent(uint32_t prompt_tokens, uint32_t cached_prompt_tokens,
                               uint64_t seed);
v1::GenerateEvent PromptProgressEvent(uint32_t done, uint32_t total);
v1::GenerateEvent TokenEvent(uint32_t index, TokenId id, const std::string& text,
                             std::optional<float> log_probability);
v1::GenerateEvent DoneEvent(const RequestResult& result, const std::string& tail);

v1::GetStatusResponse ToMessage(const DaemonStatus& status);

// Messages are cut to 2 KiB: they travel in a header, and headers are bounded (8 KiB).
grpc::Status ToGrpcStatus(const Status& status);

}  // namespace thimble
