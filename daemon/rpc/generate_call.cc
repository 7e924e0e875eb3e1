#include "daemon/rpc/generate_call.h"

#include <cstdio>
#include <functional>
#include <optional>
#include <utility>

#include "daemon/log.h"
#include "daemon/rpc/connections.h"
#include "daemon/rpc/convert.h"

namespace thimble {

GenerationHandler::GenerationHandler(Call& call, const char* method, Parse parse)
    : CallHandler(call), method_(method), parse_(parse) {}

GenerationHandler::~GenerationHandler() {
  if (counted_) --call_.context().streams;
}

Status GenerationHandler::OnMessage(const grpc::ByteBuffer& message) {
  RpcContext& context = call_.context();
  counted_ = true;  // from here on: a client that sends no request takes no place of another's
  ++context.streams;
  if (context.streams > context.max_streams) {
    Refuse(ResourceExhaustedError(std::to_string(context.max_streams) +
                                  " calls are open already; no more are accepted"));
    return {};
  }
  if (const Status held = call_.Hold(); !held.ok()) {
    Refuse(held);
    return {};
  }
  THIMBLE_ASSIGN_OR_RETURN(GenerationCall call, parse_(message, context));
  seed_ = call.request.sampling.seed;
  log_probabilities_ = call.log_probabilities;
  const std::optional<ucred> peer = context.connections->PeerOf(call_.peer());
  // A process is one client, however many connections it has.
  call.request.client = peer ? static_cast<uint64_t>(peer->pid)
                             : uint64_t{1} << 32U | std::hash<std::string>()(call_.peer());
  const size_t prompt_tokens = call.request.prompt.size();
  submitted_ = true;  // before: the scheduler may tell everything, OnDone included, from within
  const Result<uint64_t> number = context.services.scheduler.Submit(std::move(call.request), this);
  if (!number.ok()) {
    submitted_ = false;
    Refuse(number.status());
    return {};
  }
  number_ = *number;
  LogLine line(LogLevel::kInfo, "request");
  line.Add("method", method_).Add("number", number_).Add("prompt_tokens", prompt_tokens);
  if (peer) line.Add("pid", peer->pid).Add("uid", peer->uid).Add("gid", peer->gid);
  return {};
}

void GenerationHandler::Refuse(const Status& status) {
  if (status.code() != StatusCode::kResourceExhausted) {
    call_.End(status);
    return;
  }
  const double seconds = call_.context().services.scheduler.RetryAfterSeconds();
  char words[64];
  (void)std::snprintf(words, sizeof words, "; try again in %.3g s", seconds);
  call_.End(ResourceExhaustedError(status.message() + words), seconds);
}

void GenerationHandler::OnGone() {
  if (std::exchange(submitted_, false)) call_.context().services.scheduler.ClientGone(number_);
}

void GenerationHandler::OnQueued(uint32_t position, double wait_seconds) {
  Send(QueuedEvent(position, wait_seconds), true);
}

void GenerationHandler::OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) {
  Send(StartedEvent(prompt_tokens, cached_prompt_tokens, seed_));
}

void GenerationHandler::OnPromptProgress(uint32_t done, uint32_t total) {
  Send(PromptProgressEvent(done, total), true);
}

void GenerationHandler::OnToken(uint32_t index, TokenId id, const std::string& text,
                                float log_probability) {
  Send(TokenEvent(index, id, text,
                  log_probabilities_ ? std::optional<float>(log_probability) : std::nullopt));
}

void GenerationHandler::OnTail(const std::string& text) { tail_ += text; }

void GenerationHandler::OnDone(const RequestResult& result) {
  submitted_ = false;
  // UNAVAILABLE: the daemon stops and the request goes on after its next start. It is not done.
  if (result.error.code() != StatusCode::kUnavailable) Send(DoneEvent(result, tail_));
  call_.End(result.error);
}

bool GenerationHandler::CanAccept() const { return call_.waiting() < call_.context().max_events; }

void GenerationHandler::Send(const v1::GenerateEvent& event, bool newest_only) {
  call_.Send(ToBytes(event), newest_only ? event.event_case() : 0);
}

}  // namespace thimble
