// Notices an engine that is frozen: there is work, the loop turns, and nothing gets on. (A thread
// stuck within a stage answers nobody: the service manager's watchdog is for that.)
// Called by: the event loop. Memory: 40 bytes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace thimble {

class ProgressWatch {
 public:
  using Clock = std::chrono::steady_clock;
  // Far more than any stage or any wait for flash takes.
  static constexpr std::chrono::seconds kLimit{60};

  explicit ProgressWatch(Clock::duration limit = kLimit) : limit_(limit) {}

  // `progress`: any number that changes whenever work gets on.
  void Update(bool work, uint64_t progress, Clock::time_point now) {
    if (!work || !since_ || progress != progress_) {
      since_ = work ? std::optional(now) : std::nullopt;
      progress_ = progress;
    }
    now_ = now;
  }
  // Why the engine counts as frozen; empty: it does not.
  [[nodiscard]] std::string Frozen() const {
    if (!since_ || now_ - *since_ < limit_) return {};
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now_ - *since_).count();
    return "frozen: requests wait, and nothing has been computed for " + std::to_string(seconds) +
           " s";
  }

 private:
  Clock::duration limit_;
  std::optional<Clock::time_point> since_;  // of the last progress; nothing while there is no work
  Clock::time_point now_{};
  uint64_t progress_ = 0;
};

}  // namespace thimble
