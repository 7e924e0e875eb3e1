// The queue: admission, order, and which rows share the next pass.
//
//   Submit -> [queued] -> [active: prompt, then tokens] -> done
//
// A request is journaled before Submit returns. At most max_active requests are active, at most
// max_queue wait; one more is RESOURCE_EXHAUSTED, as is one of a client that has others waiting
// where only the last eighth of the places is left. Clients take turns (fair_order.h). Every pass
// carries one row for each active request that generates, and what room is left goes to the prompt
// of the request whose turn it is, at most prompt_chunk rows. A request whose sink is full is left
// out until it has room; after two seconds it gives its slot to one that waits, and takes its turn
// when its client reads again. A pass that fails is tried again with one request at a time: only
// what fails alone has failed. Tokens are journaled about once a second: those that a kill or a
// power cut finds missing are computed again, and are the same. What is kept of the end of a named
// request is its result, its tokens all journaled; a cancelled request, an unnamed one, and one
// whose error was told, are forgotten. Called by: the gRPC service, the event loop (Step). Memory:
// 4 bytes a token of the prompts of queued requests; of an active one its sampler (1 to 18.5 KiB)
// and about 20 bytes a token of its context.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "daemon/model/tokenizer.h"
#include "daemon/queue/request.h"
#include "daemon/run/runner.h"
#include "storage/base/histogram.h"
#include "storage/journal.h"

namespace thimble {

struct SchedulerOptions {
  uint32_t max_active = 4;
  uint32_t max_queue = 64;
  uint32_t prompt_chunk = 64;                // prompt rows of a pass
  uint32_t shared_prompt_rows = UINT32_MAX;  // of a pass with tokens of others: the plan's
  uint32_t context_tokens = 512;             // per request: prompt and generated
  uint32_t max_rows = 64;                    // of a pass: the plan's
  uint32_t max_logit_rows = 4;               // of a pass: the plan's
  uint32_t draft_tokens = 0;      // of one request in a pass, at most (kMaxDrafts); 0: none
  uint32_t keep_finished = 64;    // results of named requests kept for a client that comes back
  std::function<double()> clock;  // seconds, never going back; not set: the steady clock
};

struct SchedulerStatus {
  uint32_t active = 0;
  uint32_t queued = 0;
  uint64_t requests_total = 0;
  uint64_t prompt_tokens_total = 0;  // computed, those found in the cache aside
  uint64_t generated_tokens_total = 0;
  uint64_t draft_tokens_total = 0;  // verified; those accepted are generated tokens
  uint64_t draft_tokens_accepted_total = 0;
  Histogram queue_seconds;           // from acceptance to the first pass
  Histogram first_token_seconds;     // from acceptance
  Histogram token_interval_seconds;  // between two tokens of a request
  StageHistogram sample_seconds;     // drawing the tokens of a pass
};

class Scheduler {
 public:
  // Takes up the journal's unfinished requests: they are queued again, whatever max_queue, and go
  // on without a client. Those of another model stay in the journal until that one is served again;
  // those that can't be read end with DATA_LOSS, told to the client that asks for them by name.
  static Result<std::unique_ptr<Scheduler>> Open(const SchedulerOptions& options,
                                                 const Model& model, Tokenizer& tokenizer,
                                                 Runner& runner, KvCache& kv, StageStore& store,
                                                 Journal& journal);
  virtual ~Scheduler() = default;

  // Validates (INVALID_ARGUMENT naming the field, its value and range; OUT_OF_RANGE for a prompt
  // that leaves no room in the context, with the number that would fit), journals and queues.
  // Returns the request's number. `sink` must live until OnDone or ClientGone. A name that is known
  // attaches to that request instead: its tokens so far are told again from index 0, in Step and as
  // the sink accepts them. The request must be the same and have no other sink, else
  // ALREADY_EXISTS.
  virtual Result<uint64_t> Submit(GenerationRequest request, RequestSink* sink) = 0;

  // The client is gone, and its sink is not called again: a detached request goes on without, any
  // other is cancelled. A number that is not known (any more) is ignored, here and in Cancel.
  virtual void ClientGone(uint64_t number) = 0;
  // OnDone(kCancelled) at once; the slot is free at once.
  virtual void Cancel(uint64_t number) = 0;
  // Tells every request UNAVAILABLE(`why`) but leaves unfinished ones in the journal, for the next
  // start. Nothing is done or accepted afterwards.
  virtual void Suspend(const std::string& why) = 0;

  // True where Step would do something now (a full sink waits).
  [[nodiscard]] virtual bool HasWork() const = 0;
  // One step of the pass (Runner::Step), or composing the next pass, or handing out its tokens. An
  // error that concerns one request ends that request; only what makes going on impossible is
  // returned.
  virtual Status Step() = 0;

  [[nodiscard]] virtual SchedulerStatus status() const = 0;
  // Of it, alone: it is asked for in every turn of the event loop.
  [[nodiscard]] virtual uint32_t n_active() const { return status().active; }

  // Of a request that were submitted now: seconds until it starts, estimated from what passes have
  // taken; 0 where a slot is free, or nothing has been measured yet. Both take some microseconds
  // per request that waits.
  [[nodiscard]] virtual double EstimatedWaitSeconds() = 0;
  // For one that Submit has refused as RESOURCE_EXHAUSTED: seconds until a place in the queue is
  // likely to be free, at least 0.1; 1 where nothing has been measured yet.
  [[nodiscard]] virtual double RetryAfterSeconds() = 0;
};

}  // namespace thimble
