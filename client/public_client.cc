// thimble/client.h on top of client.h and resume.h.
#include <utility>

#include "client/client.h"
#include "client/fill_sampling.h"
#include "client/resume.h"
#include "client/utf8_check.h"
#include "thimble/client.h"

namespace thimble::client {
namespace {

// What GenerateRequest and ChatRequest have in common.
template <typename Request>
Status FillRequest(const GenerateOptions& options, Request* request) {
  for (const std::string& text : options.stop) {
    THIMBLE_RETURN_IF_ERROR(CheckUtf8("stop", text));
    request->add_stop(text);
  }
  THIMBLE_RETURN_IF_ERROR(CheckUtf8("request_id", options.request_id));
  if (options.max_tokens) request->set_max_tokens(*options.max_tokens);
  FillSampling(options, request->mutable_sampling());
  request->set_ignore_eos(options.ignore_eos);
  request->set_request_id(options.request_id);
  request->set_detach(options.detach);
  request->set_log_probabilities(options.log_probabilities);
  return {};
}

// Nothing for the end, and for an event of a later version of the API.
std::optional<Event> ToEvent(const v1::GenerateEvent& event) {
  switch (event.event_case()) {
    case v1::GenerateEvent::kQueued:
      return Queued{event.queued().position(), event.queued().estimated_wait_seconds()};
    case v1::GenerateEvent::kStarted:
      return Started{event.started().prompt_tokens(), event.started().cached_prompt_tokens(),
                     event.started().seed()};
    case v1::GenerateEvent::kPromptProgress:
      return PromptProgress{event.prompt_progress().done(), event.prompt_progress().total()};
    case v1::GenerateEvent::kToken: {
      Token token{event.token().index(), event.token().id(), event.token().text(), {}};
      if (event.token().has_log_probability()) {
        token.log_probability = event.token().log_probability();
      }
      return token;
    }
    default:
      return std::nullopt;
  }
}

FinishReason ToReason(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::kLength;
    case v1::FINISH_REASON_END_OF_TEXT:
      return FinishReason::kEndOfText;
    case v1::FINISH_REASON_STOP:
      return FinishReason::kStop;
    case v1::FINISH_REASON_CONTEXT:
      return FinishReason::kContext;
    default:
      return FinishReason::kUnknown;
  }
}

void TakeDone(const v1::Done& done, Answer* answer) {
  answer->text += done.tail();
  answer->reason = ToReason(done.reason());
  answer->prompt_tokens = done.prompt_tokens();
  answer->cached_prompt_tokens = done.cached_prompt_tokens();
  answer->generated_tokens = done.generated_tokens();
  answer->queued_seconds = done.queued_seconds();
  answer->first_token_seconds = done.first_token_seconds();
  answer->total_seconds = done.total_seconds();
}

Result<Answer> Run(thimble::Client& client, const Attempt& attempt, const GenerateOptions& options,
                   const OnEvent& on_event, const std::stop_token& stop) {
  Answer answer;
  ResumeOptions resume;
  if (!options.request_id.empty()) resume.patience = options.reconnect;
  THIMBLE_RETURN_IF_ERROR(
      StreamAndResume(client, attempt, resume, stop, [&](const v1::GenerateEvent& event) {
        if (event.has_token()) answer.text += event.token().text();
        if (event.has_done()) TakeDone(event.done(), &answer);
        const std::optional<Event> shown = ToEvent(event);
        return !on_event || !shown || on_event(*shown);
      }));
  return answer;
}

}  // namespace

struct Client::Impl {
  thimble::Client client;

  Result<Answer> Generate(v1::GenerateRequest request, const GenerateOptions& options,
                          const OnEvent& on_event, const std::stop_token& stop) {
    THIMBLE_RETURN_IF_ERROR(FillRequest(options, &request));
    request.set_parse_special(options.parse_special);
    return Run(
        client,
        [&](thimble::Client& connected, grpc::ClientContext& context,
            const thimble::Client::OnEvent& next) {
          return connected.Generate(request, context, next);
        },
        options, on_event, stop);
  }
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Result<Client> Client::Connect(const std::string& address) {
  THIMBLE_ASSIGN_OR_RETURN(thimble::Client client, thimble::Client::Connect(address));
  return Client(std::make_unique<Impl>(Impl{std::move(client)}));
}

Result<Answer> Client::Generate(const std::string& prompt, const GenerateOptions& options,
                                const OnEvent& on_event, const std::stop_token& stop) {
  THIMBLE_RETURN_IF_ERROR(CheckUtf8("prompt", prompt));
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  return impl_->Generate(std::move(request), options, on_event, stop);
}

Result<Answer> Client::Generate(const std::vector<int32_t>& tokens, const GenerateOptions& options,
                                const OnEvent& on_event, const std::stop_token& stop) {
  v1::GenerateRequest request;
  request.mutable_tokens()->mutable_ids()->Add(tokens.begin(), tokens.end());
  return impl_->Generate(std::move(request), options, on_event, stop);
}

Result<Answer> Client::Chat(const std::vector<Message>& messages, const GenerateOptions& options,
                            const OnEvent& on_event, const std::stop_token& stop) {
  v1::ChatRequest request;
  for (const Message& message : messages) {
    THIMBLE_RETURN_IF_ERROR(CheckUtf8("content", message.content));
    v1::ChatMessage& added = *request.mutable_conversation()->add_messages();
    added.set_role(message.role == Role::kSystem      ? v1::ROLE_SYSTEM
                   : message.role == Role::kAssistant ? v1::ROLE_ASSISTANT
                                                      : v1::ROLE_USER);
    added.set_content(message.content);
  }
  THIMBLE_RETURN_IF_ERROR(FillRequest(options, &request));
  return Run(
      impl_->client,
      [&](thimble::Client& connected, grpc::ClientContext& context,
          const thimble::Client::OnEvent& next) { return connected.Chat(request, context, next); },
      options, on_event, stop);
}

Result<std::vector<int32_t>> Client::Tokenize(const std::string& text) {
  THIMBLE_RETURN_IF_ERROR(CheckUtf8("text", text));
  v1::TokenizeRequest request;
  request.set_text(text);
  THIMBLE_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, impl_->client.Tokenize(request));
  return std::vector<int32_t>(response.ids().begin(), response.ids().end());
}

Result<std::string> Client::Detokenize(const std::vector<int32_t>& tokens) {
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(tokens.begin(), tokens.end());
  THIMBLE_ASSIGN_OR_RETURN(const v1::DetokenizeResponse response,
                           impl_->client.Detokenize(request));
  return response.text();
}

Result<ModelInfo> Client::GetModel() {
  THIMBLE_ASSIGN_OR_RETURN(const v1::GetModelResponse model, impl_->client.GetModel());
  return ModelInfo{model.name(),           model.architecture(), model.weight_bytes(),
                   model.context_tokens(), model.vocabulary(),   model.chat_template()};
}

Result<DaemonStatus> Client::GetStatus() {
  THIMBLE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, impl_->client.GetStatus());
  DaemonStatus result;
  result.version = status.version();
  result.ready = status.ready();
  result.not_ready_reason = status.not_ready_reason();
  result.uptime_seconds = status.uptime_seconds();
  result.ceiling_bytes = status.ceiling_bytes();
  result.memory_current_bytes = status.memory_current_bytes();
  result.memory_peak_bytes = status.memory_peak_bytes();
  result.oom_kills = status.oom_kills();
  result.active_requests = status.active_requests();
  result.queued_requests = status.queued_requests();
  result.generated_tokens_total = status.generated_tokens_total();
  result.flash_bytes_read = status.flash_bytes_read();
  return result;
}

Result<bool> Client::IsReady() { return impl_->client.IsServing(v1::Thimble::service_full_name()); }

}  // namespace thimble::client
