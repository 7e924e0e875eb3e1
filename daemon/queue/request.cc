#include "daemon/queue/request.h"

namespace thimble {

Status ValidateRequest(const GenerationRequest& request, uint32_t vocab_size,
                       uint32_t context_tokens) {
  const auto invalid = [](const std::string& field, size_t value, const std::string& range) {
    return InvalidArgumentError(field + " " + std::to_string(value) + ": must be within " + range);
  };
  if (request.name.size() > kMaxRequestNameBytes) {
    return invalid("bytes of request_id", request.name.size(), "[0, 128]");
  }
  if (request.prompt.empty()) {
    return InvalidArgumentError("prompt: has no tokens, at least 1 is needed");
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const TokenId id = request.prompt[i];
    if (id < 0 || static_cast<uint32_t>(id) >= vocab_size) {
      return InvalidArgumentError("prompt token " + std::to_string(i) + " is " +
                                  std::to_string(id) + ": must be within [0, " +
                                  std::to_string(vocab_size) + ")");
    }
  }
  if (request.max_tokens < 1 || request.max_tokens > context_tokens) {
    return invalid("max_tokens", request.max_tokens, "[1, " + std::to_string(context_tokens) + "]");
  }
  THIMBLE_RETURN_IF_ERROR(ValidateSampling(request.sampling));
  if (request.stop.size() > kMaxStops)
    return invalid("stop strings", request.stop.size(), "[0, 8]");
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return invalid("bytes of a stop string", stop.size(), "[1, 256]");
    }
  }
  if (request.prompt.size() >= context_tokens) {
    return OutOfRangeError("prompt of " + std::to_string(request.prompt.size()) +
                           " tokens: the context of " + std::to_string(context_tokens) +
                           " has room for a prompt of " + std::to_string(context_tokens - 1));
  }
  return {};
}

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEndOfText:
      return "end_of_text";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

}  // namespace thimble
