#include "client/interrupt.h"

#include <pthread.h>

#include <ctime>

namespace thimble {
namespace {

constexpr int kWakeUp = SIGUSR2;  // ends the waiting thread

sigset_t SetOf(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  return set;
}

}  // namespace

void BlockSignals(std::initializer_list<int> signals) {
  sigset_t set = SetOf(signals);
  sigaddset(&set, kWakeUp);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Interrupter::Interrupter(std::initializer_list<int> signals) : set_(SetOf(signals)) {
  // A signal from before, that nobody took, interrupts nothing now.
  const timespec at_once{};
  while (sigtimedwait(&set_, nullptr, &at_once) > 0) {
  }
  sigaddset(&set_, kWakeUp);
  thread_ = std::thread([this] {
    int signal = 0;
    while (sigwait(&set_, &signal) != 0) {
    }
    if (!finished_) source_.request_stop();
  });
}

Interrupter::~Interrupter() {
  finished_ = true;
  pthread_kill(thread_.native_handle(), kWakeUp);
  thread_.join();
}

}  // namespace thimble
