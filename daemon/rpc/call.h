// One gRPC call, of any method, from waiting for a client to its last operation: what all methods
// share. What is special to one is its CallHandler.
//
//   kAwaiting --accepted--> kOpen --End, the client gone--> kEnding --queue empty--> kFinishing
//
// All methods come through gRPC's generic service, as bytes: one waiting object of 1 KiB serves
// for them all (one a method would be 16 KiB for ten), and what cannot be parsed is refused with
// our words, not gRPC's.
//
// A call deletes itself when no operation of it is outstanding: while kAwaiting, when the server
// stops; else when the queue has told that the call is over (AsyncNotifyWhenDone) and its read, its
// write and its finish, if any, have completed.
// Called by: the completion queue (the tags), its handler. Memory: about 1 KiB, the request while
// the handler begins, and what the handler sends until the client takes it.
#pragma once

#include <grpcpp/generic/async_generic_service.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>

#include "daemon/rpc/context.h"
#include "daemon/rpc/tag.h"

namespace thimble {

class Call;

// One call's own part. It lives as long as its call.
class CallHandler {
 public:
  using Clock = std::chrono::steady_clock;

  explicit CallHandler(Call& call) : call_(call) {}
  virtual ~CallHandler() = default;
  CallHandler(const CallHandler&) = delete;
  CallHandler& operator=(const CallHandler&) = delete;

  // A message of the client's has come. An error becomes the call's status.
  virtual Status OnMessage(const grpc::ByteBuffer& message) = 0;
  // True: more messages of the client's are read, each when what was sent before has been taken.
  // The client's end of them ends the call.
  [[nodiscard]] virtual bool reads_on() const { return false; }
  // The client is gone: nothing can be sent any more.
  virtual void OnGone() {}
  // For a handler in RpcContext::tickers: every turn of the loop.
  virtual void OnTick(Clock::time_point /*now*/) {}
  // For a handler in RpcContext::tickers: the daemon stops, RpcContext::stopping says why.
  virtual void OnStop() {}

 protected:
  Call& call_;
};

class Call {
 public:
  // Waits for the next client.
  static void Await(RpcContext& context);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Queues a message. Where `kind` is not 0 and the last waiting message is of the same kind, it is
  // replaced: only the newest matters. Does nothing once the call ends or the client is gone.
  void Send(grpc::ByteBuffer message, int kind = 0);
  // Ends the call behind what was queued. `retry_seconds` above 0: the trailing metadata
  // grpc-retry-pushback-ms (gRFC A6) tells when to try again.
  void End(const Status& status, double retry_seconds = 0);

  // To be asked by a handler whose call may last, before it does anything: RESOURCE_EXHAUSTED where
  // too many connections have such calls.
  Status Hold();

  [[nodiscard]] size_t waiting() const { return waiting_.size(); }
  // Nothing is queued or under way.
  [[nodiscard]] bool idle() const { return waiting_.empty() && !write_outstanding_; }
  [[nodiscard]] RpcContext& context() { return context_; }
  [[nodiscard]] std::string peer() const { return call_.peer(); }

 private:
  enum class State { kAwaiting, kOpen, kEnding, kFinishing };
  struct Message {
    grpc::ByteBuffer bytes;
    int kind;
  };

  explicit Call(RpcContext& context) : context_(context) { ++context_.calls; }
  ~Call();

  void Accepted(bool ok);
  void Read(bool ok);
  void Written(bool ok);
  void Finished(bool ok);
  void Over(bool ok);  // AsyncNotifyWhenDone

  void ReadNext();
  // Starts the next write or the finish if none is under way.
  void Pump();
  void DeleteIfOver();

  RpcContext& context_;
  grpc::GenericServerContext call_;
  grpc::GenericServerAsyncReaderWriter stream_{&call_};
  MemberTag<Call> accepted_{this, &Call::Accepted};
  MemberTag<Call> read_{this, &Call::Read};
  MemberTag<Call> written_{this, &Call::Written};
  MemberTag<Call> finished_{this, &Call::Finished};
  MemberTag<Call> over_tag_{this, &Call::Over};

  std::unique_ptr<CallHandler> handler_;
  uint64_t connection_ = 0;  // RpcConnections'
  bool held_ = false;
  State state_ = State::kAwaiting;
  grpc::ByteBuffer message_;  // being read
  std::deque<Message> waiting_;
  size_t bytes_outstanding_ = 0;  // being written
  grpc::Status status_;           // from kEnding on
  uint32_t messages_ = 0;         // read
  bool read_outstanding_ = false;
  bool write_outstanding_ = false;  // a write or the finish
  bool over_ = false;
};

}  // namespace thimble
