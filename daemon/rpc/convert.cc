#include "daemon/rpc/convert.h"

#include "daemon/rpc/utf8.h"

namespace thimble {
namespace {

constexpr size_t kMaxMessageBytes = 2048;

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

v1::GenerateEvent QueuedEvent(uint32_t position, double estimated_wait_seconds) {
  v1::GenerateEvent event;
  event.mutable_queued()->set_position(position);
  event.mutable_queued()->set_estimated_wait_seconds(estimated_wait_seconds);
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
  m.set_stage_index(status.stage_index);
  m.set_passes_total(status.passes);
  m.set_active_requests(status.requests.active);
  m.set_queued_requests(status.requests.queued);
  m.set_requests_total(status.requests.requests_total);
  m.set_prompt_tokens_total(status.requests.prompt_tokens_total);
  m.set_generated_tokens_total(status.requests.generated_tokens_total);
  m.set_draft_tokens_total(status.requests.draft_tokens_total);
  m.set_draft_tokens_accepted_total(status.requests.draft_tokens_accepted_total);
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

std::string NotReady(const RpcContext& context) {
  return context.stopping.empty() ? context.not_ready : "stopping: " + context.stopping;
}

grpc::Status ToGrpcStatus(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()),
          status.message().substr(0, kMaxMessageBytes)};
}

}  // namespace thimble
