// A request for text, how it ends, and what its client is told.
// Called by: the gRPC service (as RequestSink), the scheduler, the request's record in the journal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/tokenizer.h"
#include "daemon/run/sampling_options.h"
#include "storage/base/status.h"

namespace thimble {

inline constexpr size_t kMaxRequestNameBytes = 128;
inline constexpr size_t kMaxStops = 8;
inline constexpr size_t kMaxStopBytes = 256;

struct GenerationRequest {
  std::string name;             // the client's own id for it, may be empty
  std::vector<TokenId> prompt;  // at least one token
  uint32_t max_tokens = 128;    // of generated text; [1, context_tokens]
  SamplingOptions sampling;
  std::vector<std::string> stop;  // at most 8, each 1 to 256 bytes; not part of the text
  bool ignore_eos = false;        // the model's end tokens are never drawn
  bool detach = false;            // goes on when its client goes away
  // Who asks, for the fair order: requests of one client take turns with those of others. Any
  // number that tells clients apart (of a connection, or a process). Not journaled.
  uint64_t client = 0;
};

// INVALID_ARGUMENT naming the field, its value and its range; OUT_OF_RANGE for a prompt that leaves
// no room in the context, with the number that would fit.
Status ValidateRequest(const GenerationRequest& request, uint32_t vocab_size,
                       uint32_t context_tokens);

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

// Seconds. After a restart of the daemon: since the restart.
struct RequestTimings {
  double queued = 0;
  double first_token = 0;  // from acceptance; 0 where there was none
  double total = 0;
};

struct RequestResult {
  FinishReason reason = FinishReason::kLength;
  Status error;  // kError and kCancelled. UNAVAILABLE only from Suspend: such a request is not done
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;  // whose keys and values were already there
  uint32_t generated_tokens = 0;      // the model's end token is not one
  RequestTimings timings;
};

// What a request tells its client; called on the one thread, from Submit, Step, Cancel or Suspend.
// A sink must not call the scheduler from within.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // `position` 1: next; told again when it changes. `wait_seconds`: until it starts, estimated from
  // what passes have taken; 0 where a slot is free, or nothing has been measured yet.
  virtual void OnQueued(uint32_t position, double wait_seconds) = 0;
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

}  // namespace thimble
