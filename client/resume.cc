#include "client/resume.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

namespace thimble {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kFirstWait{100};
constexpr milliseconds kLongestWait{2000};

// False where a stop came before the time was over.
bool Wait(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

Status Differs(size_t index, const std::string& what) {
  return DataLossError("resume the request: token " + std::to_string(index) + " is " + what +
                       ": the daemon has lost its state or has another model now");
}

}  // namespace

bool IsLostConnection(const Status& status) {
  switch (status.code()) {
    case StatusCode::kUnavailable:
      return true;
    case StatusCode::kNotFound:  // no socket: the daemon is not up again yet
      return status.message().starts_with("connect to ");
    case StatusCode::kAlreadyExists:
      return status.message().find("another client is being told") != std::string::npos;
    default:
      return false;
  }
}

Result<bool> ToldEvents::IsNews(const v1::GenerateEvent& event) {
  if (event.has_started()) return !std::exchange(started_, true);
  if (event.has_done()) {
    done_ = true;
    // An error's Done may come before the tokens that were told have been told again.
    if (next_ < ids_.size() && event.done().reason() != v1::FINISH_REASON_ERROR &&
        event.done().reason() != v1::FINISH_REASON_CANCELLED) {
      return Differs(next_, "missing");
    }
    return true;
  }
  if (!event.has_token()) return true;
  const size_t index = next_++;
  if (event.token().index() != index) {
    return Differs(index, "told as token " + std::to_string(event.token().index()));
  }
  if (index == ids_.size()) {
    ids_.push_back(event.token().id());
    return true;
  }
  if (event.token().id() == ids_[index]) return false;
  return Differs(index, "now " + std::to_string(event.token().id()) + " and was " +
                            std::to_string(ids_[index]));
}

Status StreamAndResume(Client& client, const Attempt& attempt, const ResumeOptions& options,
                       const std::stop_token& stop, const Client::OnEvent& on_event) {
  ToldEvents told;
  Clock::time_point last_event = Clock::now();
  milliseconds wait = kFirstWait;
  Status connected;
  while (true) {
    Status status = connected;
    if (status.ok()) {
      told.Restart();
      grpc::ClientContext context;
      const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
      Status refused;
      bool heard = false;
      status = attempt(client, context, [&](const v1::GenerateEvent& event) {
        heard = true;
        const Result<bool> news = told.IsNews(event);
        if (!news.ok()) {
          refused = news.status();
          return false;
        }
        return !*news || on_event(event);
      });
      if (!refused.ok()) return refused;
      if (heard) {
        last_event = Clock::now();
        wait = kFirstWait;
      }
    }
    if (status.ok() || told.done() || !IsLostConnection(status)) return status;
    if (Clock::now() + wait > last_event + options.patience) {
      if (options.patience.count() == 0 || told.tokens() == 0) return status;
      return {status.code(), status.message() + "; given up after " +
                                 std::to_string(options.patience.count() / 1000) + " s"};
    }
    if (options.on_lost) options.on_lost(status, wait);
    if (!Wait(wait, stop)) return CancelledError("interrupted");
    wait = std::min(2 * wait, kLongestWait);
    connected = client.Reconnect();
    // NOT_FOUND and the like are the same loss as before; anything else ends it above.
  }
}

}  // namespace thimble
