// The requests that wait: whose turn it is, who may join them, and what they are told about it.
#include <algorithm>
#include <string>

#include "daemon/queue/scheduler_impl.h"

namespace thimble {
namespace {

// Of the queue's places, kept for clients that have no request waiting: without it one client that
// fills the queue would shut out all others.
constexpr uint32_t kNewcomersShare = 8;
// A request whose client has taken nothing for so long gives its slot to one that waits for it.
constexpr double kStallSeconds = 2;
// The hint to a refused client, where it is too small to be of use or nothing has been measured.
constexpr double kLeastRetrySeconds = 0.1;
constexpr double kUnknownRetrySeconds = 1;

}  // namespace

const std::vector<LiveRequest*>& SchedulerImpl::QueueOrder() {
  entries_.clear();
  entry_requests_.clear();
  active_work_.clear();
  for (const auto& request : requests_) {
    const bool active = request->state == State::kActive;
    if (!active && !request->startable()) continue;
    entries_.push_back({request->number, request->client, active});
    entry_requests_.push_back(request.get());
    if (active) active_work_.push_back(WorkLeft(*request));
  }
  order_.clear();
  for (const size_t index : fair_.Order(entries_)) order_.push_back(entry_requests_[index]);
  return order_;
}

WaitEstimate::Work SchedulerImpl::WorkLeft(const LiveRequest& request) const {
  const auto known = static_cast<uint32_t>(request.tokens.size());
  const uint32_t computed = request.state == State::kActive ? request.sequence.n_tokens : 0;
  const uint32_t end =
      std::min<uint32_t>(options_.context_tokens, request.n_prompt + request.options.max_tokens);
  return {known - std::min(known, computed), end - std::min(end, known)};
}

Status SchedulerImpl::CheckRoom(uint64_t client) const {
  const uint32_t queued = Count(State::kQueued);
  const uint32_t free = options_.max_active - std::min(options_.max_active, Count(State::kActive));
  const uint64_t places = uint64_t{options_.max_queue} + free;
  // What waits for a slot that is free will have left the queue before the next pass.
  const auto full = [&] {
    return "queue: " + std::to_string(queued) + " requests wait, for " +
           std::to_string(options_.max_queue) + " places and " + std::to_string(free) +
           " free slots";
  };
  if (queued >= places) return ResourceExhaustedError(full());
  const uint32_t kept = options_.max_queue / kNewcomersShare;
  const bool waits = std::any_of(requests_.begin(), requests_.end(), [=](const auto& r) {
    return r->state == State::kQueued && r->client == client;
  });
  if (waits && queued + kept >= places) {
    return ResourceExhaustedError(full() + "; " + std::to_string(kept) +
                                  " of the places are kept for clients that have none waiting");
  }
  return {};
}

void SchedulerImpl::Admit() {
  uint32_t active = Count(State::kActive);
  bool moved = false;
  while (true) {
    const std::vector<LiveRequest*>& order = QueueOrder();
    if (order.empty()) break;
    if (active >= options_.max_active) {
      if (!GiveUpASlot()) break;
      --active;
      continue;
    }
    LiveRequest& next = *order.front();
    fair_.Started(next.client);
    Activate(next);
    if (next.state == State::kActive) ++active;
    moved = true;
  }
  if (moved) TellQueuePositions();
}

bool SchedulerImpl::Stalled(const LiveRequest& request) const {
  if (request.state != State::kActive || !request.sink_is_full()) return false;
  return options_.clock() - std::max(request.activated_at, request.last_token_at) >= kStallSeconds;
}

// It goes on where it was when its client reads again: its tokens are known, and their keys and
// values in the cache, the last block's aside.
bool SchedulerImpl::GiveUpASlot() {
  for (const auto& request : requests_) {
    if (!Stalled(*request)) continue;
    Release(*request);
    request->state = State::kQueued;
    return true;
  }
  return false;
}

const std::vector<double>& SchedulerImpl::Waits() {
  queued_work_.clear();
  for (const LiveRequest* request : QueueOrder()) queued_work_.push_back(WorkLeft(*request));
  estimate_.Waits(active_work_, queued_work_, &waits_);
  return waits_;
}

void SchedulerImpl::TellQueuePositions() {
  const std::vector<double>& waits = Waits();
  for (size_t i = 0; i < order_.size(); ++i) {
    LiveRequest& request = *order_[i];
    const auto position = static_cast<uint32_t>(i + 1);
    if (request.sink == nullptr || request.told_started) continue;
    if (request.told_position == position) continue;
    request.told_position = position;
    request.sink->OnQueued(position, waits[i]);
  }
}

double SchedulerImpl::EstimatedWaitSeconds() { return Waits().back(); }

double SchedulerImpl::RetryAfterSeconds() {
  // A place is free when the next one starts.
  const double next = Waits().front();
  return next == 0 ? kUnknownRetrySeconds : std::max(next, kLeastRetrySeconds);
}

}  // namespace thimble
