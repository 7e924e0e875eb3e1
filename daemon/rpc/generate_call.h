// A Generate or Chat call: tells its client what the scheduler tells it. A client that goes away is
// told to the scheduler at once; one that reads slowly is left out of passes.
// Called by: its Call, the scheduler (RequestSink). Memory: under 200 bytes, the request while it
// is tokenized, and at most max_events waiting events (replayed ones of a known request aside).
#pragma once

#include <string>

#include "daemon/rpc/call.h"
#include "daemon/rpc/generation_request.h"

namespace thimble {

class GenerationHandler : public CallHandler, public RequestSink {
 public:
  using Parse = Result<GenerationCall> (*)(const grpc::ByteBuffer&, const RpcContext&);

  // `method` is for the log.
  GenerationHandler(Call& call, const char* method, Parse parse);
  ~GenerationHandler() override;

  Status OnMessage(const grpc::ByteBuffer& message) override;
  void OnGone() override;

  void OnQueued(uint32_t position, double wait_seconds) override;
  void OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) override;
  void OnPromptProgress(uint32_t done, uint32_t total) override;
  void OnToken(uint32_t index, TokenId id, const std::string& text, float log_probability) override;
  void OnTail(const std::string& text) override;
  void OnDone(const RequestResult& result) override;
  [[nodiscard]] bool CanAccept() const override;

 private:
  // The scheduler's refusal; of a full queue with when to try again.
  void Refuse(const Status& status);
  void Send(const v1::GenerateEvent& event, bool newest_only = false);

  const char* const method_;
  const Parse parse_;
  std::string tail_;
  uint64_t seed_ = 0;
  uint64_t number_ = 0;   // the scheduler's, while submitted_
  bool counted_ = false;  // in RpcContext::streams
  bool log_probabilities_ = false;
  bool submitted_ = false;  // the scheduler may call this sink
};

class GenerateCall final : public GenerationHandler {
 public:
  explicit GenerateCall(Call& call) : GenerationHandler(call, "Generate", ParseGenerate) {}
};

class ChatCall final : public GenerationHandler {
 public:
  explicit ChatCall(Call& call) : GenerationHandler(call, "Chat", ParseChat) {}
};

}  // namespace thimble
