#include "daemon/queue/scheduler.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {
namespace {

// Tokens told to one sink in one Step when it is behind: a Step is short.
constexpr uint32_t kTellAtOnce = 32;

SchedulerOptions Sane(SchedulerOptions options) {
  for (uint32_t* least_one :
       {&options.max_active, &options.prompt_chunk, &options.shared_prompt_rows, &options.max_rows,
        &options.max_logit_rows, &options.context_tokens}) {
    *least_one = std::max<uint32_t>(*least_one, 1);
  }
  options.draft_tokens = std::min(options.draft_tokens, kMaxDrafts);
  if (!options.clock) {
    options.clock = [] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
    };
  }
  return options;
}

}  // namespace

LiveRequest::LiveRequest(uint64_t its_number, GenerationRequest its_options,
                         std::vector<TokenId> prompt)
    : number(its_number),
      options(std::move(its_options)),
      tokens(std::move(prompt)),
      stop(options.stop),
      text(options.stop) {
  n_prompt = static_cast<uint32_t>(tokens.size());
}

Result<std::unique_ptr<Scheduler>> Scheduler::Open(const SchedulerOptions& options,
                                                   const Model& model, Tokenizer& tokenizer,
                                                   Runner& runner, KvCache& kv, StageStore& store,
                                                   Journal& journal) {
  auto scheduler =
      std::make_unique<SchedulerImpl>(options, model, tokenizer, runner, kv, store, journal);
  THIMBLE_RETURN_IF_ERROR(scheduler->Resume());
  return std::unique_ptr<Scheduler>(std::move(scheduler));
}

SchedulerImpl::SchedulerImpl(const SchedulerOptions& options, const Model& model,
                             Tokenizer& tokenizer, Runner& runner, KvCache& kv, StageStore& store,
                             Journal& journal)
    : options_(Sane(options)),
      model_(model.fingerprint),
      vocab_size_(model.vocab_size),
      tokenizer_(tokenizer),
      runner_(runner),
      kv_(kv),
      store_(store),
      journal_(journal),
      slots_(options_.max_active),
      composer_({options_.max_rows, options_.max_logit_rows, options_.prompt_chunk, kKvBlockTokens,
                 options_.shared_prompt_rows}),
      estimate_(options_.max_active, std::min(options_.prompt_chunk, options_.shared_prompt_rows)),
      successors_(options_.draft_tokens > 0 ? model.vocab_size : 0),
      draft_grants_(options_.max_active, options_.max_logit_rows) {
  const size_t n = options_.max_active;
  items_.reserve(n);
  in_pass_.reserve(n);
  candidates_.reserve(n);
  candidate_requests_.reserve(n);
  shares_.reserve(n);
  ints_.reserve(options_.max_logit_rows * size_t{kJournalIntsPerToken});
  emitted_.reserve(n);
  emitters_.reserve(n);
  offers_.reserve(n);
}

SchedulerImpl::~SchedulerImpl() {
  if (!in_pass_.empty()) runner_.Abort();
  for (const auto& request : requests_) Release(*request);
}

Result<uint64_t> SchedulerImpl::Submit(GenerationRequest request, RequestSink* sink) {
  if (!suspended_.empty()) return UnavailableError(suspended_);
  THIMBLE_RETURN_IF_ERROR(ValidateRequest(request, vocab_size_, options_.context_tokens));
  RecordPending();
  if (!request.name.empty()) {
    THIMBLE_ASSIGN_OR_RETURN(const auto known, journal_.FindByName(request.name));
    if (known) return Attach(*known, request, sink);
  }
  THIMBLE_RETURN_IF_ERROR(CheckRoom(request.client));
  THIMBLE_ASSIGN_OR_RETURN(const uint64_t number,
                           journal_.Accept(request.name, EncodeRequest(request, model_)));
  ++totals_.requests_total;
  const uint64_t client = request.client;
  std::vector<TokenId> prompt = std::exchange(request.prompt, {});
  auto live = std::make_unique<LiveRequest>(number, std::move(request), std::move(prompt));
  live->accepted_at = options_.clock();
  live->client = client;
  live->sink = sink;
  requests_.push_back(std::move(live));
  TellQueuePositions();
  return number;
}

LiveRequest* SchedulerImpl::Find(uint64_t number) {
  for (const auto& request : requests_) {
    if (request->number == number && request->state != State::kGone) return request.get();
  }
  return nullptr;
}

uint32_t SchedulerImpl::Count(State state) const {
  return static_cast<uint32_t>(std::count_if(requests_.begin(), requests_.end(),
                                             [&](const auto& r) { return r->state == state; }));
}

void SchedulerImpl::ClientGone(uint64_t number) {
  LiveRequest* request = Find(number);
  if (request == nullptr || request->sink == nullptr) return;
  Detach(*request);
  if (request->state == State::kEnded) {
    request->state = State::kGone;
  } else if (!request->detach) {
    End(*request, FinishReason::kCancelled, CancelledError("the client is gone"));
  }
  Forget();
}

void SchedulerImpl::Cancel(uint64_t number) {
  LiveRequest* request = Find(number);
  if (request == nullptr) return;
  Status cancelled =
      CancelledError("request " + std::to_string(request->number) + " was cancelled");
  if (request->state == State::kEnded) {  // what the journal has of it stays
    request->result.reason = FinishReason::kCancelled;
    request->result.error = std::move(cancelled);
    request->forget_when_told = false;
    TellDone(*request);
  } else {
    End(*request, FinishReason::kCancelled, std::move(cancelled));
  }
  Forget();
}

void SchedulerImpl::Suspend(const std::string& why) {
  if (!suspended_.empty()) return;
  suspended_ = why.empty() ? "the daemon is stopping" : why;
  if (!in_pass_.empty()) runner_.Abort();
  items_.clear();
  in_pass_.clear();
  (void)JournalTokens();  // what it does not take is computed again
  RecordPending();
  for (const auto& request : requests_) {
    Release(*request);
    request->forget_when_told = false;
    request->result = {};
    request->result.reason = FinishReason::kError;
    request->result.error = UnavailableError(suspended_);
    request->result.prompt_tokens = request->n_prompt;
    request->result.generated_tokens = request->generated();
    TellDone(*request);
  }
  Forget();
}

bool SchedulerImpl::HasWork() const {
  if (!suspended_.empty()) return false;
  if (!in_pass_.empty()) return true;
  bool queued = false;
  bool stalled = false;
  uint32_t active = 0;
  for (const auto& request : requests_) {
    const bool tells = request->state == State::kActive || request->state == State::kEnded;
    if (tells && request->sink_is_behind() && request->sink->CanAccept()) return true;
    if (request->state == State::kEnded && !request->sink_is_behind()) return true;
    if (request->runnable()) return true;
    queued = queued || request->startable();
    stalled = stalled || Stalled(*request);
    active += request->state == State::kActive ? 1 : 0;
  }
  return queued && (stalled || active < options_.max_active);
}

Status SchedulerImpl::Step() {
  if (!suspended_.empty()) return {};
  for (const auto& request : requests_) {
    if (request->state == State::kActive || request->state == State::kEnded) {
      Tell(*request, kTellAtOnce, false);
    }
  }
  if (in_pass_.empty()) {
    Admit();
    BeginPass();
  } else {
    const Result<bool> done = runner_.Step();
    if (!done.ok()) {
      PassFailed(done.status());
    } else if (*done) {
      PassDone();
    }
  }
  Forget();
  return {};
}

void SchedulerImpl::Activate(LiveRequest& request) {
  const auto capacity = static_cast<uint32_t>(std::min<uint64_t>(
      options_.context_tokens, uint64_t{request.n_prompt} + request.options.max_tokens));
  Result<KvSequence> sequence = kv_.OpenSequence(request.tokens, capacity);
  if (!sequence.ok()) {
    Fail(request, sequence.status());
    return;
  }
  request.sequence = std::move(sequence).value();
  request.state = State::kActive;
  request.slot =
      static_cast<uint32_t>(std::find(slots_.begin(), slots_.end(), false) - slots_.begin());
  slots_[request.slot] = true;
  request.tokens.reserve(capacity);
  request.log_probabilities.reserve(capacity - request.n_prompt);
  request.sampler.emplace(request.options.sampling, vocab_size_, request.slot, &store_,
                          options_.draft_tokens);
  request.row_tokens.reserve(1 + request.sampler->max_drafts());
  request.activated_at = options_.clock();
  if (request.started_at < 0) {
    request.started_at = request.activated_at;
    totals_.queue_seconds.Observe(request.started_at - request.accepted_at);
    request.cached = std::min(request.sequence.n_tokens, request.n_prompt);
  }
  if (request.sink != nullptr && !request.told_started) {
    request.told_started = true;
    request.sink->OnStarted(request.n_prompt, request.cached);
  }
}

void SchedulerImpl::Forget() {
  std::erase_if(requests_, [](const auto& r) { return r->state == State::kGone; });
}

SchedulerStatus SchedulerImpl::status() const {
  SchedulerStatus status = totals_;
  status.active = Count(State::kActive);
  status.queued = Count(State::kQueued);
  return status;
}

}  // namespace thimble
