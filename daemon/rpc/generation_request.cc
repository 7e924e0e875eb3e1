#include "daemon/rpc/generation_request.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "daemon/rpc/convert.h"

namespace thimble {
namespace {

constexpr std::array kGenerateStrings = {StringField{.number = 1, .name = "prompt"},
                                         StringField{.number = 5, .name = "stop", .repeated = true},
                                         StringField{.number = 8, .name = "request_id"}};
constexpr std::array kChatStrings = {
    StringField{.number = 1, .name = "conversation", .inside = kConversationStrings},
    StringField{.number = 5, .name = "stop", .repeated = true},
    StringField{.number = 8, .name = "request_id"}};

// A named request without a seed takes it from its name (FNV-1a), so that sending it again is the
// same request and not a different one under a name that is taken.
Result<uint64_t> ChooseSeed(const std::string& name) {
  uint64_t seed = 0xcbf29ce484222325U;
  if (!name.empty()) {
    for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return seed;
  }
  if (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
    return ErrnoError(errno, "choose a seed");
  }
  return seed;
}

Result<SamplingOptions> ToSampling(const v1::SamplingOptions& message, const std::string& name) {
  SamplingOptions options;
  if (message.has_temperature()) options.temperature = message.temperature();
  if (message.has_top_k()) options.top_k = message.top_k();
  if (message.has_top_p()) options.top_p = message.top_p();
  if (message.has_min_p()) options.min_p = message.min_p();
  if (message.has_repeat_penalty()) options.repeat_penalty = message.repeat_penalty();
  if (message.has_repeat_last_n()) options.repeat_last_n = message.repeat_last_n();
  if (message.has_presence_penalty()) options.presence_penalty = message.presence_penalty();
  if (message.has_frequency_penalty()) options.frequency_penalty = message.frequency_penalty();
  if (message.has_seed()) {
    options.seed = message.seed();
  } else {
    THIMBLE_ASSIGN_OR_RETURN(options.seed, ChooseSeed(name));
  }
  THIMBLE_RETURN_IF_ERROR(ValidateSampling(options));
  return options;
}

// What Generate and Chat have under the same names; all but the prompt.
template <typename Message>
Result<GenerationCall> ToCall(const Message& message, const RpcServices& services) {
  GenerationCall call;
  GenerationRequest& request = call.request;
  request.name = message.request_id();
  if (request.name.size() > kMaxRequestNameBytes) {
    return InvalidArgumentError("request_id of " + std::to_string(request.name.size()) +
                                " bytes: at most " + std::to_string(kMaxRequestNameBytes));
  }
  if (message.has_max_tokens()) {
    request.max_tokens = message.max_tokens();
    if (request.max_tokens < 1 || request.max_tokens > services.context_tokens) {
      return InvalidArgumentError("max_tokens " + std::to_string(request.max_tokens) +
                                  ": from 1 to " + std::to_string(services.context_tokens));
    }
  } else {
    request.max_tokens = std::min(request.max_tokens, services.context_tokens);
  }
  if (static_cast<size_t>(message.stop_size()) > kMaxStops) {
    return InvalidArgumentError("stop with " + std::to_string(message.stop_size()) +
                                " strings: at most " + std::to_string(kMaxStops));
  }
  for (int i = 0; i < message.stop_size(); ++i) {
    const std::string& stop = message.stop(i);
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return InvalidArgumentError("stop[" + std::to_string(i) + "] of " +
                                  std::to_string(stop.size()) + " bytes: from 1 to " +
                                  std::to_string(kMaxStopBytes));
    }
    request.stop.push_back(stop);
  }
  request.ignore_eos = message.ignore_eos();
  request.detach = message.detach();
  THIMBLE_ASSIGN_OR_RETURN(request.sampling, ToSampling(message.sampling(), request.name));
  call.log_probabilities = message.log_probabilities();
  return call;
}

}  // namespace

Status CheckPromptBytes(std::string_view field, size_t bytes, const RpcServices& services) {
  const size_t most = MaxPromptBytes(services);
  if (bytes <= most) return {};
  return OutOfRangeError(std::string(field) + " of " + std::to_string(bytes) + " bytes: at most " +
                         std::to_string(most) + " for a context of " +
                         std::to_string(services.context_tokens) + " tokens");
}

Status CheckTokenIds(std::string_view field, std::span<const int32_t> ids, uint32_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && static_cast<uint32_t>(ids[i]) < vocab_size) continue;
    return InvalidArgumentError(std::string(field) + "[" + std::to_string(i) + "] " +
                                std::to_string(ids[i]) + ": from 0 to " +
                                std::to_string(vocab_size - 1));
  }
  return {};
}

Result<std::vector<TokenId>> TokenizeText(std::string_view field, const std::string& text,
                                          const EncodeOptions& options, const RpcContext& context) {
  THIMBLE_RETURN_IF_ERROR(CheckPromptBytes(field, text.size(), context.services));
  return context.services.tokenizer.Encode(text, options);
}

Result<GenerationCall> ParseGenerate(const grpc::ByteBuffer& bytes, const RpcContext& context) {
  v1::GenerateRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(bytes, kGenerateStrings, &message));
  THIMBLE_ASSIGN_OR_RETURN(GenerationCall call, ToCall(message, context.services));
  std::vector<TokenId>& prompt = call.request.prompt;
  switch (message.input_case()) {
    case v1::GenerateRequest::kPrompt: {
      EncodeOptions options;
      options.parse_special = message.parse_special();
      THIMBLE_ASSIGN_OR_RETURN(prompt, TokenizeText("prompt", message.prompt(), options, context));
      if (prompt.empty()) return InvalidArgumentError("prompt: it gives no tokens; at least one");
      return call;
    }
    case v1::GenerateRequest::kTokens: {
      const auto& ids = message.tokens().ids();
      if (ids.empty()) return InvalidArgumentError("tokens: at least one id");
      prompt.assign(ids.begin(), ids.end());
      THIMBLE_RETURN_IF_ERROR(
          CheckTokenIds("tokens", prompt, context.services.tokenizer.vocab_size()));
      return call;
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidArgumentError("prompt or tokens: one of them must be set");
}

Result<GenerationCall> ParseChat(const grpc::ByteBuffer& bytes, const RpcContext& context) {
  v1::ChatRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(bytes, kChatStrings, &message));
  THIMBLE_ASSIGN_OR_RETURN(GenerationCall call, ToCall(message, context.services));
  if (!message.has_conversation()) return InvalidArgumentError("conversation: it must be set");
  THIMBLE_ASSIGN_OR_RETURN(call.request.prompt,
                           TokenizeConversation(message.conversation(), context));
  return call;
}

}  // namespace thimble
