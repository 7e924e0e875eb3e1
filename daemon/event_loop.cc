#include "daemon/event_loop.h"

#include <algorithm>
#include <bit>
#include <csignal>
#include <utility>

#include "daemon/log.h"
#include "daemon/sd_notify.h"

namespace thimble {

EventLoop::EventLoop(Scheduler& scheduler, RpcServer& server, std::chrono::milliseconds grace)
    : scheduler_(scheduler), server_(server), grace_(grace) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    boost::system::error_code error;
    signals_.add(signal, error);
    if (error) {
      LogLine(LogLevel::kWarning, "signal").Add("number", signal).Add("error", error.message());
    }
  }
  AwaitSignal();
  FeedWatchdog();
}

EventLoop::~EventLoop() { LeaveListener(); }

void EventLoop::FeedWatchdog() {
  if (watchdog_interval_.count() == 0) return;
  SdNotify("WATCHDOG=1");
  watchdog_timer_.expires_after(watchdog_interval_);
  watchdog_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) FeedWatchdog();
  });
}

void EventLoop::AwaitSignal() {
  signals_.async_wait([this](const boost::system::error_code& error, int signal) {
    if (error) return;
    if (signal == SIGHUP) {
      if (reload_) reload_();
    } else {
      Stop("the daemon is stopping");
    }
    AwaitSignal();
  });
}

void EventLoop::Stop(const std::string& why) {
  if (!stopping_.empty()) {
    CutOff();
    return;
  }
  stopping_ = why.empty() ? "the daemon is stopping" : why;
  LogLine(LogLevel::kInfo, "stopping").Add("why", why);
  SdNotify("STOPPING=1");
  scheduler_.Suspend(why);
  LeaveListener();
  server_.BeginShutdown(why);
  grace_timer_.expires_after(grace_);
  grace_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) CutOff();
  });
}

void EventLoop::CutOff() {
  if (cut_off_) return;
  cut_off_ = true;
  server_.CancelAll();
  grace_timer_.expires_after(kCancelLimit);
  grace_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) stuck_ = true;
  });
}

void EventLoop::RunSteps() {
  const auto end = std::chrono::steady_clock::now() + kStepBurst;
  do {
    Status status = scheduler_.Step();
    if (!status.ok()) {
      LogLine(LogLevel::kError, "scheduler").Add("error", status.ToString());
      error_ = std::move(status);
      Stop("the daemon has to stop: " + error_.message());
      return;
    }
  } while (scheduler_.HasWork() && std::chrono::steady_clock::now() < end);
}

void EventLoop::CheckProgress(bool work) {
  if (!progress_) return;
  progress_watch_.Update(work, work ? progress_() : 0, ProgressWatch::Clock::now());
  std::string frozen = progress_watch_.Frozen();
  if (frozen == frozen_) return;
  if (frozen.empty()) LogLine(LogLevel::kNotice, "thawed");
  if (frozen_.empty()) LogLine(LogLevel::kError, "frozen").Add("why", frozen);
  frozen_ = std::move(frozen);
  server_.SetNotReady(frozen_);
}

std::chrono::milliseconds EventLoop::Tick() const {
  return short_tick_ && short_tick_() ? kShortTick : kIdleTick;
}

void EventLoop::Rest(bool active) {
  const auto now = std::chrono::steady_clock::now();
  if (active) {
    rests_ = 0;
    rest_at_ = now + kRestAfter;
    quiet_at_ = now + kQuietAfter;
  } else if (rest_ && rests_ < kRests && now >= rest_at_) {
    ++rests_;
    rest_at_ = now + kRestAfter;
    work_turns_ = 0;
    rest_();
  }
}

void EventLoop::Tidy() {
  if (++work_turns_ >= kFirstTidy && std::has_single_bit(work_turns_) && tidy_) tidy_();
}

void EventLoop::LeaveListener() {
  if (listener_.is_open()) listener_.release();
}

std::chrono::milliseconds EventLoop::LookAtGroup() {
  return keep_room_ ? keep_room_() : kQuietTick;
}

void EventLoop::TakeListener(int listener) {
  if (listener_refused_) return;
  boost::system::error_code error;
  if (!listener_.is_open()) listener_.assign(listener, error);
  if (error) {
    // The first client is found at the end of a sleep then.
    listener_refused_ = true;
    LogLine(LogLevel::kWarning, "listener").Add("error", error.message());
    return;
  }
  if (std::exchange(listener_awaited_, true)) return;
  listener_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [this](const boost::system::error_code&) { listener_awaited_ = false; });
}

void EventLoop::AwaitFirst(int listener, std::chrono::milliseconds tick,
                           std::chrono::milliseconds look) {
  TakeListener(listener);
  using Clock = std::chrono::steady_clock;
  Clock::time_point now = Clock::now();
  const bool quiet = now >= quiet_at_ && !listener_refused_;
  Clock::time_point end = now + (quiet ? kQuietTick : tick);
  if (quiet && rest_ && rests_ < kRests) end = std::min(end, rest_at_);
  while (now < end) {
    io_.restart();
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now);
    const bool happened = io_.run_one_for(std::min(left, look)) != 0;
    // What Asio's handlers do is their own, but for these.
    if (!listener_awaited_ || !stopping_.empty()) return;
    if (happened && (!quiet || Tick() == kShortTick)) return;
    look = LookAtGroup();
    now = Clock::now();
  }
}

Status EventLoop::Run() {
  while (stopping_.empty() || !server_.drained()) {
    const bool work = stopping_.empty() && scheduler_.HasWork();
    if (work) {
      RunSteps();
      Tidy();
    }
    const std::chrono::milliseconds look = LookAtGroup();
    CheckProgress(work);
    io_.restart();
    io_.poll();
    const std::chrono::milliseconds tick = Tick();
    const int listener = work ? -1 : server_.AwaitsFirst();
    if (listener >= 0) AwaitFirst(listener, tick, look);
    const size_t events =
        server_.Poll(work || listener >= 0 ? std::chrono::milliseconds(0) : std::min(tick, look));
    Rest(work || events != 0 || tick == kShortTick);
    if (stuck_)
      return DeadlineExceededError("stop: calls are still open after they were cancelled");
  }
  return error_;
}

}  // namespace thimble
