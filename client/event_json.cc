#include "client/event_json.h"

#include "client/json_line.h"

namespace thimble {

std::string_view FinishReasonText(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_END_OF_TEXT:
      return "end_of_text";
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_CONTEXT:
      return "context";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_ERROR:
      return "error";
    default:
      return "unknown";
  }
}

std::string EventJson(const v1::GenerateEvent& event) {
  JsonLine line;
  switch (event.event_case()) {
    case v1::GenerateEvent::kQueued:
      line.Add("event", "queued").Add("position", event.queued().position());
      if (event.queued().estimated_wait_seconds() > 0) {
        line.Add("estimated_wait_seconds", event.queued().estimated_wait_seconds());
      }
      return line.str();
    case v1::GenerateEvent::kStarted:
      line.Add("event", "started")
          .Add("prompt_tokens", event.started().prompt_tokens())
          .Add("cached_prompt_tokens", event.started().cached_prompt_tokens())
          .Add("seed", event.started().seed());
      return line.str();
    case v1::GenerateEvent::kPromptProgress:
      line.Add("event", "prompt_progress")
          .Add("done", event.prompt_progress().done())
          .Add("total", event.prompt_progress().total());
      return line.str();
    case v1::GenerateEvent::kToken:
      line.Add("event", "token")
          .Add("index", event.token().index())
          .Add("id", event.token().id())
          .Add("text", event.token().text());
      if (event.token().has_log_probability()) {
        line.Add("log_probability", event.token().log_probability());
      }
      return line.str();
    case v1::GenerateEvent::kDone: {
      const v1::Done& done = event.done();
      line.Add("event", "done")
          .Add("reason", FinishReasonText(done.reason()))
          .Add("prompt_tokens", done.prompt_tokens())
          .Add("cached_prompt_tokens", done.cached_prompt_tokens())
          .Add("generated_tokens", done.generated_tokens())
          .Add("queued_seconds", done.queued_seconds())
          .Add("first_token_seconds", done.first_token_seconds())
          .Add("total_seconds", done.total_seconds())
          .Add("tail", done.tail());
      return line.str();
    }
    case v1::GenerateEvent::EVENT_NOT_SET:
      break;
  }
  return {};
}

}  // namespace thimble
