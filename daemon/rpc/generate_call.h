// One Generate call, from waiting for a client to its last operation.
//
//   kAwaiting --accepted--> kStreaming --OnDone, refused--> kEnding --queue empty--> kFinishing
//
// It deletes itself when no operation of it is outstanding: while kAwaiting, when the server stops;
// else when the queue has told that the call is over (AsyncNotifyWhenDone) and its write and its
// finish, if any, have completed. A client that goes away is told to the scheduler at once.
// Called by: the completion queue (the tags), the scheduler (RequestSink). Memory: about 2 KiB, the
// request while it is tokenized, and at most max_events waiting events (replayed ones of a known
// request aside).
#pragma once

#include <deque>
#include <string>

#include "daemon/rpc/context.h"
#include "daemon/rpc/tag.h"

namespace thimble {

class GenerateCall final : public RequestSink {
 public:
  // Waits for the next client.
  static void Await(RpcContext& context);

  void OnQueued(uint32_t position, double wait_seconds) override;
  void OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) override;
  void OnPromptProgress(uint32_t done, uint32_t total) override;
  void OnToken(uint32_t index, TokenId id, const std::string& text, float log_probability) override;
  void OnTail(const std::string& text) override;
  void OnDone(const RequestResult& result) override;
  [[nodiscard]] bool CanAccept() const override;

 private:
  enum class State { kAwaiting, kStreaming, kEnding, kFinishing };

  explicit GenerateCall(RpcContext& context);
  ~GenerateCall() override;

  void Accepted(bool ok);
  void Written(bool ok);
  void Finished(bool ok);
  void Over(bool ok);  // AsyncNotifyWhenDone

  // Hands the request to the scheduler; an error is the call's status.
  Status Submit();
  // `event` replaces the last waiting one of the same kind where only the newest matters.
  void Send(v1::GenerateEvent event, bool newest_only = false);
  void End(const Status& status);
  // Starts the next operation if none is under way.
  void Pump();
  void DeleteIfOver();

  RpcContext& context_;
  grpc::ServerContext call_;
  v1::GenerateRequest request_;
  grpc::ServerAsyncWriter<v1::GenerateEvent> writer_{&call_};
  MemberTag<GenerateCall> accepted_{this, &GenerateCall::Accepted};
  MemberTag<GenerateCall> written_{this, &GenerateCall::Written};
  MemberTag<GenerateCall> finished_{this, &GenerateCall::Finished};
  MemberTag<GenerateCall> over_tag_{this, &GenerateCall::Over};

  State state_ = State::kAwaiting;
  std::deque<v1::GenerateEvent> waiting_;
  std::string tail_;
  grpc::Status status_;  // from kEnding on
  uint64_t seed_ = 0;
  uint64_t number_ = 0;  // the scheduler's, while submitted_
  bool log_probabilities_ = false;
  bool submitted_ = false;       // the scheduler may call this sink
  bool op_outstanding_ = false;  // a write or the finish
  bool over_ = false;
};

}  // namespace thimble
