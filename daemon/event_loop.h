// The one thread: gRPC's completion queue, Asio (signals, timers) and at most one stage, in turn.
//
// While there is work the scheduler steps for kStepBurst, then both queues are polled without
// sleeping; idle, the thread sleeps in the completion queue and looks at Asio every kIdleTick.
// Without connections it sleeps in Asio, where the listening socket is one of those awaited, and
// after kQuietAfter without work or a call it looks at the control group alone between two sleeps,
// as often as that asks for: after 150 ms of sleep all that is touched comes from RAM, and a whole
// turn takes 0.7 ms of a server's core. 2 to 7 wake-ups a second, and gRPC's own threads have 2.
// Only this loop sleeps. Where a socket of Asio's has someone waiting (SetShortTick) it looks every
// kShortTick. A turn of the loop feeds the service manager's watchdog: a thread stuck in a stage or
// a handler does not.
//
// Called by: main. Memory: some KiB.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "daemon/progress_watch.h"
#include "daemon/queue/scheduler.h"
#include "daemon/rpc/server.h"
#include "daemon/sd_notify.h"
#include "storage/base/status.h"

namespace thimble {

class EventLoop {
 public:
  static constexpr std::chrono::milliseconds kStepBurst{2};
  static constexpr std::chrono::milliseconds kIdleTick{150};
  // A quiet turn: so long, whatever is looked at meanwhile.
  static constexpr std::chrono::milliseconds kQuietTick{5000};
  static constexpr std::chrono::milliseconds kShortTick{5};

  // Takes SIGTERM, SIGINT and SIGHUP over. `grace`: for clients to take what was sent before they
  // are cut off.
  EventLoop(Scheduler& scheduler, RpcServer& server,
            std::chrono::milliseconds grace = std::chrono::seconds(5));
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Until Stop, or an error of the scheduler that makes going on impossible (which is returned,
  // after an orderly end). DEADLINE_EXCEEDED where calls outlive the grace period by kCancelLimit.
  Status Run();

  // Ends the loop: unfinished requests stay in the journal, every call is ended with
  // UNAVAILABLE(`why`), what is left after the grace period is cancelled. A second call cancels at
  // once.
  void Stop(const std::string& why);

  // `wanted`, asked before each sleep: whether someone waits for a socket of io(). Must stay valid
  // while Run runs.
  void SetShortTick(std::function<bool()> wanted) { short_tick_ = std::move(wanted); }

  // On SIGHUP. Must stay valid while Run runs.
  void SetReload(std::function<void()> reload) { reload_ = std::move(reload); }

  // `progress`: a number that changes whenever work gets on. Where it stands still for `limit`
  // while there is work, the server's readiness and not_ready() say so. Must stay valid while Run
  // runs.
  void WatchProgress(std::function<uint64_t()> progress,
                     std::chrono::milliseconds limit = ProgressWatch::kLimit) {
    progress_ = std::move(progress);
    progress_watch_ = ProgressWatch(limit);
  }

  // Why requests are not served, "stopping: ..." or "frozen: ..."; empty: they are.
  [[nodiscard]] std::string not_ready() const {
    return stopping_.empty() ? frozen_ : "stopping: " + stopping_;
  }

  // Called when nothing has happened for kRestAfter, and once more as long after that: the time to
  // give RAM back that work has left behind.
  void SetRest(std::function<void()> rest) { rest_ = std::move(rest); }
  static constexpr std::chrono::seconds kRestAfter{5};

  // Called now and then while there is work, less and less often since the last rest: the time to
  // give RAM back that a thing done for the first time has left behind. Returns at once.
  void SetTidy(std::function<void()> tidy) { tidy_ = std::move(tidy); }

  // Called in every turn, idle ones too: the time to look at what others do to the control group.
  // Must take no time worth speaking of. Returns how long the loop may sleep until the next, more
  // than 0. Must stay valid while Run runs.
  void SetKeepRoom(std::function<std::chrono::milliseconds()> keep_room) {
    keep_room_ = std::move(keep_room);
  }

  // For timers and sockets of others.
  [[nodiscard]] boost::asio::io_context& io() { return io_; }

 private:
  static constexpr std::chrono::seconds kCancelLimit{5};

  void AwaitSignal();
  void RunSteps();
  void CheckProgress(bool work);
  void FeedWatchdog();
  void Rest(bool active);  // something has happened in this turn
  // Sleeps in Asio, where handlers run, until there is a first connection at `listener`, or for
  // `tick`; in a quiet time until the next rest, or for kQuietTick. Looks at the group after `look`
  // and then as often as that asks for.
  void AwaitFirst(int listener, std::chrono::milliseconds tick, std::chrono::milliseconds look);
  void TakeListener(int listener);
  void LeaveListener();
  void Tidy();
  [[nodiscard]] std::chrono::milliseconds Tick() const;
  std::chrono::milliseconds LookAtGroup();  // until when the next has time
  void CutOff();                            // the grace period is over

  Scheduler& scheduler_;
  RpcServer& server_;
  const std::chrono::milliseconds grace_;
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_};
  boost::asio::steady_timer grace_timer_{io_};
  const std::chrono::microseconds watchdog_interval_ = WatchdogInterval();  // 0: nobody watches
  boost::asio::steady_timer watchdog_timer_{io_};
  // The server's socket: open while it is awaited, released before the server closes it.
  boost::asio::posix::stream_descriptor listener_{io_};
  bool listener_awaited_ = false;
  bool listener_refused_ = false;  // the kernel had no room for it
  std::function<bool()> short_tick_;
  std::function<void()> rest_;
  std::function<void()> tidy_;
  std::function<std::chrono::milliseconds()> keep_room_;
  // Turns with work since the last rest; at 8, 16, 32 ... of them things are tidied.
  static constexpr uint64_t kFirstTidy = 8;
  uint64_t work_turns_ = 0;
  // Twice: pages that the first one finds dirty are on their way to the disk, the second drops
  // them.
  static constexpr int kRests = 2;
  int rests_ = 0;
  static constexpr std::chrono::milliseconds kQuietAfter{1200};
  std::chrono::steady_clock::time_point quiet_at_ = std::chrono::steady_clock::now() + kQuietAfter;
  std::chrono::steady_clock::time_point rest_at_ = std::chrono::steady_clock::now() + kRestAfter;
  std::function<void()> reload_;
  std::function<uint64_t()> progress_;
  ProgressWatch progress_watch_;
  std::string frozen_;  // why the engine counts as frozen; empty: it does not
  std::string stopping_;
  bool cut_off_ = false;
  bool stuck_ = false;
  Status error_;
};

}  // namespace thimble
