// The queue: admission, order, and which rows share the next pass.
//
//   Submit -> [queued] -> [active: prompt, then tokens] -> done
//
// A request is journaled before Submit returns. At most max_active requests are active, at most
// max_queue wait; one more is RESOURCE_EXHAUSTED. Every pass carries one row for each active request that
// generates, and what room is left goes to the prompt of the request whose turn it is, at most
// prompt_chunk rows. A request whose sink is full is left out until it has room.
// Called by: the gRPC service, the event loop (Step). Memory: prompts of queued requests and about
// 40 KiB an active request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/model/tokenizer.h"
#include "daemon/run/runner.h"
#include "daemon/run/sampler.h"
#include "storage/journal.h"

namespace thimble {

struct GenerationRequest {
  std::string name;                // the client's own id for it, may be empty
  std::vector<TokenId> prompt;     // at least one token
  uint32_t max_tokens = 128;       // of generated text
  SamplingOptions sampling;
  std::vector<std::string> stop;   // at most 8, each 1 to 256 bytes; not part of the text
  bool ignore_eos = false;
  bool detach = false;             // goes on when its client goes away
};

// The wire and the journal carry these: never change these values.
enum class FinishReason : uint8_t {
  kLength = 1,     // max_tokens
  kEndOfText = 2,  // the model's own end
  kStop = 3,       // a stop string
  kContext = 4,    // the context is full
  kCancelled = 5,
  kError = 6,
};
std::string_view FinishReasonName(FinishReason reason);  // "length", "end_of_text", "stop", ...

struct RequestTimings {  // seconds
  double queued = 0;
  double first_token = 0;  // from acceptance
  double total = 0;
};

struct RequestResult {
  FinishReason reason = FinishReason::kLength;
  Status error;  // kError and kCancelled
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;  // whose keys and values were already there
  uint32_t generated_tokens = 0;
  RequestTimings timings;
};

// What a request tells its client; called on the one thread, from Submit, Step or Cancel.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void OnQueued(uint32_t position) = 0;  // 1: next
  virtual void OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) = 0;
  virtual void OnPromptProgress(uint32_t done, uint32_t total) = 0;
  // `text` is whole UTF-8 characters, and may be empty (a stop string may be beginning, or a
  // character is incomplete): the joined texts are the result.
  virtual void OnToken(uint32_t index, TokenId id, const std::string& text,
                       float log_probability) = 0;
  // Text that was held back, before OnDone; not called when there is none.
  virtual void OnTail(const std::string& text) = 0;
  virtual void OnDone(const RequestResult& result) = 0;  // the last call
  // False: do not compute more tokens for this request now.
  [[nodiscard]] virtual bool CanAccept() const = 0;
};

struct SchedulerOptions {
  uint32_t max_active = 4;
  uint32_t max_queue = 64;
  uint32_t prompt_chunk = 64;
  uint32_t context_tokens = 512;  // per request: prompt and generated
  uint32_t keep_finished = 64;    // results kept for a client that comes back
};

struct SchedulerStatus {
  uint32_t active = 0;
  uint32_t queued = 0;
  uint64_t requests_total = 0;
  uint64_t prompt_tokens_total = 0;
  uint64_t generated_tokens_total = 0;
};

class Scheduler {
 public:
  // Takes up the journal's unfinished requests: they are queued again and go on without a client.
  static Result<std::unique_ptr<Scheduler>> Open(const SchedulerOptions& options,
                                                 const Model& model, Tokenizer& tokenizer,
                                                 Runner& runner, KvCache& kv, StageStore& store,
                                                 Journal& journal);
  virtual ~Scheduler() = default;

  // Validates (INVALID_ARGUMENT naming the field, its value and range; OUT_OF_RANGE for a prompt that
  // leaves no room in the context, with the number that would fit), journals and queues. Returns the request's
  // number. `sink` must live until OnDone or Detach. A name that is known attaches to that request
  // instead (its tokens so far are told again from index 0); the request must be the same, else ALREADY_EXISTS.
  virtual Result<uint64_t> Submit(GenerationRequest request, RequestSink* sink) = 0;

  // The client is gone: a detached request goes on without a sink, any other is cancelled.
  virtual void ClientGone(uint64_t number) = 0;
  // OnDone(kCancelled) at once; the slot is free at once.
  virtual void Cancel(uint64_t number) = 0;
  // Tells every request UNAVAILABLE(`why`) but leaves unfinished ones in the journal, for the next start.
  virtual void Suspend(const std::string& why) = 0;

  // True where Step would do something now (a full sink waits).
  [[nodiscard]] virtual bool HasWork() const = 0;
  // One step of the pass (Runner::Step), or composing the next pass, or handing out its tokens. An error
  // that concerns one request ends that request; only what makes going on impossible is returned.
  virtual Status Step() = 0;

  [[nodiscard]] virtual SchedulerStatus status() const = 0;
};

}  // namespace thimble
