// A stream of GenerateEvents that outlives its connection: where the daemon is restarted in the
// middle, the same request is sent again and goes on behind the last token that was told.
// Called by: `thimble generate` and `chat`, the client library. Memory: 4 bytes for each token.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "client/client.h"
#include "storage/base/status.h"
#include "thimble/v1/thimble.pb.h"

namespace thimble {

// Whether sending the request again may help: the connection is gone, the daemon is stopping or
// has not noticed yet that the earlier call is over.
bool IsLostConnection(const Status& status);

// What has been told so far of one request, over any number of attempts.
class ToldEvents {
 public:
  // A further attempt begins: the daemon tells its tokens from the first on.
  void Restart() { next_ = 0; }

  // Whether `event` is news: not a token that was told before, nor a second Started. DATA_LOSS
  // where a token is another one than was told, or one is missing: then the daemon has lost its
  // state or has another model now.
  Result<bool> IsNews(const v1::GenerateEvent& event);

  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] size_t tokens() const { return ids_.size(); }

 private:
  std::vector<int32_t> ids_;
  size_t next_ = 0;  // index of the next token of this attempt
  bool started_ = false;
  bool done_ = false;
};

struct ResumeOptions {
  // How long to try after the last event. Zero: a lost connection is an error at once.
  std::chrono::milliseconds patience{0};
  // Told before each wait; may be empty.
  std::function<void(const Status& why, std::chrono::milliseconds wait)> on_lost;
};

// One attempt: sends the request over `client`.
using Attempt = std::function<Status(Client& client, grpc::ClientContext& context,
                                     const Client::OnEvent& on_event)>;

// Calls `attempt` until the request is done, fails for a reason of its own, or patience is over:
// waits of 0.1 s to 2 s in between. `on_event` gets every event once, in order; it, or a stop,
// cancels the call. A stop while waiting is CANCELLED.
Status StreamAndResume(Client& client, const Attempt& attempt, const ResumeOptions& options,
                       const std::stop_token& stop, const Client::OnEvent& on_event);

}  // namespace thimble
