// Ctrl-C and SIGTERM as a std::stop_token. Signals are waited for on a thread of their own, since
// what cancels a gRPC call may not be called from a signal handler.
// Called by: the commands that stream. Memory: one thread's stack while an Interrupter lives.
#pragma once

#include <atomic>
#include <csignal>
#include <initializer_list>
#include <stop_token>
#include <thread>

namespace thimble {

// Blocks `signals` in this thread and those it starts from now on: to be called before anything
// (gRPC) starts a thread.
void BlockSignals(std::initializer_list<int> signals);

// While it lives, the first of `signals`, which must be blocked, requests a stop.
class Interrupter {
 public:
  Interrupter(std::initializer_list<int> signals);
  ~Interrupter();
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;

  [[nodiscard]] std::stop_token token() const { return source_.get_token(); }
  [[nodiscard]] bool interrupted() const { return source_.stop_requested(); }

 private:
  sigset_t set_{};
  std::atomic<bool> finished_ = false;
  std::stop_source source_;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace thimble
