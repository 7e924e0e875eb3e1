#include "daemon/rpc/convert.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "daemon/rpc/utf8.h"

namespace thimble {
namespace {

constexpr size_t kMaxMessageBytes = 2048;

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

Result<std::vector<TokenId>> ToTokens(const v1::TokenIds& message, uint32_t vocab_size) {
  if (message.ids().empty()) return InvalidArgumentError("tokens: at least one id");
  for (int i = 0; i < message.ids_size(); ++i) {
    const int32_t id = message.ids(i);
    if (id >= 0 && static_cast<uint32_t>(id) < vocab_size) continue;
    return InvalidArgumentError("tokens[" + std::to_string(i) + "] " + std::to_string(id) +
                                ": from 0 to " + std::to_string(vocab_size - 1));
  }
  return std::vector<TokenId>(message.ids().begin(), message.ids().end());
}

Result<std::vector<TokenId>> TokenizePrompt(const v1::GenerateRequest& message,
                                            const RpcServices& services) {
  const size_t most = size_t{kPromptBytesPerToken} * services.context_tokens;
  if (message.prompt().size() > most) {
    return OutOfRangeError("prompt of " + std::to_string(message.prompt().size()) +
                           " bytes: at most " + std::to_string(most) + " for a context of " +
                           std::to_string(services.context_tokens) + " tokens");
  }
  EncodeOptions options;
  options.parse_special = message.parse_special();
  THIMBLE_ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                           services.tokenizer.Encode(message.prompt(), options));
  if (tokens.empty()) return InvalidArgumentError("prompt: it gives no tokens; at least one");
  return tokens;
}

v1::FinishReason ToReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kEndOfText:
      return v1::FINISH_REASON_END_OF_TEXT;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kContext:
      return v1::FINISH_REASON_CONTEXT;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

Result<GenerationRequest> ToGenerationRequest(const v1::GenerateRequest& message,
                                              const RpcServices& services) {
  GenerationRequest request;
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
  for (const std::string& stop : message.stop()) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return InvalidArgumentError("stop string of " + std::to_string(stop.size()) +
                                  " bytes: from 1 to " + std::to_string(kMaxStopBytes));
    }
    request.stop.push_back(stop);
  }
  request.ignore_eos = message.ignore_eos();
  request.detach = message.detach();
  THIMBLE_ASSIGN_OR_RETURN(request.sampling, ToSampling(message.sampling(), request.name));
  switch (message.input_case()) {
    case v1::GenerateRequest::kPrompt: {
      THIMBLE_ASSIGN_OR_RETURN(request.prompt, TokenizePrompt(message, services));
      return request;
    }
    case v1::GenerateRequest::kTokens: {
      THIMBLE_ASSIGN_OR_RETURN(request.prompt,
                               ToTokens(message.tokens(), services.tokenizer.vocab_size()));
      return request;
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidArgumentError("prompt or tokens: one of them must be set");
}

v1::GenerateEvent QueuedEvent(uint32_t position) {
  v1::GenerateEvent event;
  event.mutable_queued()->set_position(position);
  return event;
}

v1::GenerateEvent StartedEvent(uint32_t prompt_tokens, uint32_t cached_prompt_tokens,
                               uint64_t seed) {
  v1::GenerateEvent event;
  v1::Started& started = *event.mutable_started();
  started.set_prompt_tokens(prompt_tokens);
  started.set_cached_prompt_tokens(cached_prompt_tokens);
  started.set_seed(seed);
  return event;
}

v1::GenerateEvent PromptProgressEvent(uint32_t done, uint32_t total) {
  v1::GenerateEvent event;
  event.mutable_prompt_progress()->set_done(done);
  event.mutable_prompt_progress()->set_total(total);
  return event;
}

v1::GenerateEvent TokenEvent(uint32_t index, TokenId id, const std::string& text,
                             std::optional<float> log_probability) {
  v1::GenerateEvent event;
  v1::Token& token = *event.mutable_token();
  token.set_index(index);
  token.set_id(id);
  token.set_text(ToValidUtf8(text));
  if (token.text() != text) token.set_raw(text);
  if (log_probability) token.set_log_probability(*log_probability);
  return event;
}

v1::GenerateEvent DoneEvent(const RequestResult& result, const std::string& tail) {
  v1::GenerateEvent event;
  v1::Done& done = *event.mutable_done();
  done.set_reason(ToReason(result.reason));
  done.set_prompt_tokens(result.prompt_tokens);
  done.set_cached_prompt_tokens(result.cached_prompt_tokens);
  done.set_generated_tokens(result.generated_tokens);
  done.set_queued_seconds(result.timings.queued);
  done.set_first_token_seconds(result.timings.first_token);
  done.set_total_seconds(result.timings.total);
  done.set_tail(ToValidUtf8(tail));
  return event;
}

v1::GetStatusResponse ToMessage(const DaemonStatus& status) {
  v1::GetStatusResponse m;
  m.set_version(status.version);
  m.set_model_name(ToValidUtf8(status.model_name));
  m.set_architecture(ToValidUtf8(status.architecture));
  m.set_model_bytes(status.model_bytes);
  m.set_context_tokens(status.context_tokens);
  m.set_uptime_seconds(status.uptime_seconds);
  m.set_ceiling_bytes(status.ceiling_bytes);
  m.set_enforcement(status.enforcement);
  m.set_control_group(ToValidUtf8(status.control_group));
  m.set_memory_current_bytes(status.memory.current);
  m.set_memory_peak_bytes(status.memory.peak);
  m.set_memory_page_cache_bytes(status.memory.page_cache);
  m.set_memory_failures(status.memory.failures);
  m.set_oom_kills(status.memory.oom_kills);
  m.set_plan_peak_bytes(status.plan_peak_bytes);
  m.set_arena_peak_bytes(status.arena_peak_bytes);
  m.set_resident_bytes(status.resident_bytes);
  m.set_granularity(status.granularity);
  m.set_groups(status.groups);
  m.set_stage(status.stage);
  m.set_active_requests(status.requests.active);
  m.set_queued_requests(status.requests.queued);
  m.set_requests_total(status.requests.requests_total);
  m.set_prompt_tokens_total(status.requests.prompt_tokens_total);
  m.set_generated_tokens_total(status.requests.generated_tokens_total);
  m.set_prefix_hit_tokens_total(status.prefix_hit_tokens);
  m.set_flash_bytes_per_second(status.flash_bytes_per_second);
  m.set_processor_bytes_per_second(status.processor_bytes_per_second);
  m.set_reader(status.reader);
  for (const std::string& refusal : status.reader_refusals) {
    m.add_reader_refusals(ToValidUtf8(refusal));
  }
  m.set_flash_bytes_read(status.flash_bytes_read);
  m.set_flash_stall_seconds(status.flash_stall_seconds);
  m.set_stage_bytes_written(status.stage_bytes_written);
  for (const std::string& note : status.notes) m.add_notes(ToValidUtf8(note));
  return m;
}

grpc::Status ToGrpcStatus(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()),
          status.message().substr(0, kMaxMessageBytes)};
}

}  // namespace thimble
