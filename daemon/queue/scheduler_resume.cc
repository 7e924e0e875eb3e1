// The journal's requests: taking up the unfinished ones at start, and telling a client that comes
// back.
#include <utility>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {

Status SchedulerImpl::Resume() {
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, journal_.Unfinished());
  for (const uint64_t number : numbers) {
    Status resumed = ResumeOne(number);
    if (resumed.code() == StatusCode::kDataLoss) {
      RequestResult lost;
      lost.reason = FinishReason::kError;
      lost.error = resumed;
      THIMBLE_RETURN_IF_ERROR(journal_.Finish(number, EncodeOutcome(lost), options_.keep_finished));
    } else if (!resumed.ok()) {
      return resumed;
    }
  }
  Forget();
  return {};
}

Status SchedulerImpl::ResumeOne(uint64_t number) {
  THIMBLE_ASSIGN_OR_RETURN(Journal::Entry entry, journal_.Load(number));
  THIMBLE_ASSIGN_OR_RETURN(RequestRecord record, DecodeRequest(entry.request));
  if (record.model != model_) return {};
  record.request.name = std::move(entry.name);
  for (const TokenId id : record.request.prompt) {
    if (static_cast<uint32_t>(id) >= vocab_size_) {
      return DataLossError("resume request " + std::to_string(number) + ": prompt token " +
                           std::to_string(id) + " of " + std::to_string(vocab_size_));
    }
  }
  std::vector<TokenId> prompt = std::exchange(record.request.prompt, {});
  auto live = std::make_unique<LiveRequest>(number, std::move(record.request), std::move(prompt));
  THIMBLE_RETURN_IF_ERROR(TakeTokens(*live, entry.tokens));
  live->accepted_at = options_.clock();
  LiveRequest& request = *live;
  requests_.push_back(std::move(live));
  if (request.n_prompt >= options_.context_tokens) {
    Fail(request, OutOfRangeError("resume request " + std::to_string(number) + ": prompt of " +
                                  std::to_string(request.n_prompt) + " tokens, context of " +
                                  std::to_string(options_.context_tokens)));
  } else if (const auto reason = EndAfter(request)) {
    End(request, *reason);  // its last token was journaled, its end was not
  }
  return {};
}

// Appends what the journal has to a request that has only its prompt.
Status SchedulerImpl::TakeTokens(LiveRequest& request, const std::vector<int32_t>& ints) {
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<EmittedToken> tokens, DecodeTokens(ints));
  for (const EmittedToken& token : tokens) {
    if (token.id < 0 || static_cast<uint32_t>(token.id) >= vocab_size_) {
      return DataLossError("read tokens of request " + std::to_string(request.number) + ": token " +
                           std::to_string(token.id) + " of " + std::to_string(vocab_size_));
    }
    THIMBLE_ASSIGN_OR_RETURN(const std::string bytes, tokenizer_.TokenBytes(token.id, false));
    std::string text;
    request.stop.Push(bytes, &text);
    request.tokens.push_back(token.id);
    request.log_probabilities.push_back(token.log_probability);
  }
  request.journaled = request.generated();
  return {};
}

Result<uint64_t> SchedulerImpl::Attach(uint64_t number, const GenerationRequest& request,
                                       RequestSink* sink) {
  Result<Journal::Entry> entry = journal_.Load(number);
  const std::string what = "request \"" + request.name + "\"";
  if (entry.status().code() == StatusCode::kDataLoss && Find(number) == nullptr) {
    THIMBLE_RETURN_IF_ERROR(journal_.Remove(number));  // told once, then its name is free
  }
  if (!entry.ok()) return entry.status();
  LiveRequest* live = Find(number);
  if (live == nullptr && entry->outcome) {
    THIMBLE_RETURN_IF_ERROR(AttachEnded(*entry, request, sink));
    return number;
  }
  if (!IsRecordOf(entry->request, request, model_)) {
    return AlreadyExistsError(what + ": accepted before, with another prompt, options or model");
  }
  if (live == nullptr) {
    // Its end is not recorded yet (a full disk).
    return UnavailableError(what + ": it has ended, and the journal could not take its result");
  }
  if (live->sink != nullptr) return AlreadyExistsError(what + ": another client is being told");
  if (sink == nullptr) return number;
  live->sink = sink;
  live->detach = request.detach;
  live->client = request.client;
  live->told_position = 0;
  if (live->state == State::kQueued) {
    TellQueuePositions();
  } else {
    live->told_started = true;
    sink->OnStarted(live->n_prompt, live->cached);
  }
  return number;
}

Status SchedulerImpl::AttachEnded(const Journal::Entry& entry, const GenerationRequest& request,
                                  RequestSink* sink) {
  Result<RequestResult> outcome = DecodeOutcome(*entry.outcome);
  const Result<RequestRecord> record = DecodeRequest(entry.request);
  if (!outcome.ok() || !record.ok()) {  // told once, then its name is free
    THIMBLE_RETURN_IF_ERROR(journal_.Remove(entry.number));
    return outcome.ok() ? record.status() : outcome.status();
  }
  if (!IsRecordOf(entry.request, request, model_)) {
    return AlreadyExistsError("request \"" + request.name +
                              "\": ended before, with another prompt, options or model");
  }
  if (sink == nullptr) return {};
  GenerationRequest options = request;
  std::vector<TokenId> prompt = std::exchange(options.prompt, {});
  auto live = std::make_unique<LiveRequest>(entry.number, std::move(options), std::move(prompt));
  if (Status taken = TakeTokens(*live, entry.tokens); !taken.ok()) {
    THIMBLE_RETURN_IF_ERROR(journal_.Remove(entry.number));
    return taken;
  }
  live->state = State::kEnded;
  live->result = std::move(*outcome);
  live->forget_when_told = live->result.reason == FinishReason::kError;
  live->sink = sink;
  live->cached = live->result.cached_prompt_tokens;
  sink->OnStarted(live->n_prompt, live->cached);
  requests_.push_back(std::move(live));
  return {};
}

}  // namespace thimble
