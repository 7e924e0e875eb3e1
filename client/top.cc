// `thimble top`: a live view of the daemon on a terminal; plain lines anywhere else. One thread
// reads statuses, this one draws, and waits for keys, signals and statuses at once.
// Called by: main. Memory: two statuses and a screenful.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "client/client.h"
#include "client/common.h"
#include "client/interrupt.h"
#include "client/resume.h"
#include "client/terminal.h"
#include "client/top_view.h"

namespace thimble {
namespace {

constexpr std::chrono::seconds kRetry{1};

// The alternate screen, no cursor, keys without Enter and unseen; undone at the end.
class Screen {
 public:
  Screen() {
    ::tcgetattr(STDIN_FILENO, &before_);
    termios keys = before_;
    keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &keys);
    Write("\x1b[?1049h\x1b[?25l");
  }
  ~Screen() {
    Write("\x1b[?25h\x1b[?1049l");
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  static void Draw(const std::vector<std::string>& lines) {
    const TerminalSize size = SizeOfTerminal(STDOUT_FILENO);
    std::string out = "\x1b[H";
    for (size_t i = 0; i < lines.size() && i < static_cast<size_t>(size.rows); ++i) {
      if (i > 0) out += "\r\n";
      out += lines[i] + "\x1b[K";
    }
    Write(out + "\x1b[J");
  }

 private:
  static void Write(const std::string& text) {
    (void)std::fwrite(text.data(), 1, text.size(), stdout);
    (void)std::fflush(stdout);
  }
  termios before_{};
};

// Statuses, read on a thread; the descriptor is readable when there is something new.
class Watcher {
 public:
  Watcher(Client& client, double interval_seconds)
      : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        thread_([this, &client, interval_seconds](const std::stop_token& stop) {
          Watch(client, interval_seconds, stop);
        }) {}
  ~Watcher() {
    thread_.request_stop();
    thread_.join();
    ::close(event_);
  }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  [[nodiscard]] int descriptor() const { return event_; }

  struct View {
    std::optional<v1::GetStatusResponse> status;
    Rates rates;
    Status error;  // of the connection; it is tried again
  };
  View Take() {
    uint64_t ignored = 0;
    (void)!::read(event_, &ignored, sizeof ignored);
    const std::scoped_lock lock(mutex_);
    return view_;
  }

 private:
  void Watch(Client& client, double interval_seconds, const std::stop_token& stop) {
    Status connected;
    while (!stop.stop_requested()) {
      Status status = connected;
      if (status.ok()) {
        grpc::ClientContext context;
        const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
        status = client.WatchStatus(interval_seconds, context, [this](const auto& now) {
          Put(now);
          return true;
        });
      }
      {
        const std::scoped_lock lock(mutex_);
        view_.error = status;
      }
      Signal();
      std::unique_lock lock(mutex_);
      stopped_.wait_for(lock, stop, kRetry, [] { return false; });
      lock.unlock();
      connected = client.Reconnect();
    }
  }
  void Put(const v1::GetStatusResponse& now) {
    {
      const std::scoped_lock lock(mutex_);
      view_.rates = view_.status ? RatesBetween(*view_.status, now) : Rates();
      view_.status = now;
      view_.error = {};
    }
    Signal();
  }
  void Signal() const {
    const uint64_t one = 1;
    (void)!::write(event_, &one, sizeof one);
  }

  const int event_;
  std::mutex mutex_;  // guards view_
  std::condition_variable_any stopped_;
  View view_;
  std::jthread thread_;  // the last member: it uses the others
};

void Draw(const Watcher::View& view, bool utf8) {
  ViewStyle style;
  style.columns = SizeOfTerminal(STDOUT_FILENO).columns;
  style.utf8 = utf8;
  style.color = std::getenv("NO_COLOR") == nullptr;
  std::vector<std::string> lines;
  if (view.status) lines = TopLines(*view.status, view.rates, style);
  if (!view.error.ok()) {
    lines.insert(lines.begin(), Clip("NOT CONNECTED: " + view.error.message(), style.columns));
  }
  lines.emplace_back();
  lines.push_back(Clip("q leaves", style.columns));
  Screen::Draw(lines);
}

int RunOnScreen(Client& client, const TopCommand& command) {
  const bool utf8 = UseLocale();
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGWINCH, SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  const int signals = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) {
    PrintError(ErrnoError(errno, "signalfd"), /*json=*/false);
    return kExitFailed;
  }
  const Screen screen;
  Watcher watcher(client, command.interval_seconds);
  int exit_code = -1;
  while (exit_code < 0) {
    std::array<pollfd, 3> waiting = {
        {{STDIN_FILENO, POLLIN, 0}, {watcher.descriptor(), POLLIN, 0}, {signals, POLLIN, 0}}};
    if (::poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) break;
    if (waiting[0].revents != 0) {
      char key = 0;
      if (::read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q') exit_code = kExitOk;
    }
    signalfd_siginfo got{};
    while (::read(signals, &got, sizeof got) == sizeof got) {
      if (got.ssi_signo != SIGWINCH) exit_code = kExitInterrupted;
    }
    Draw(watcher.Take(), utf8);
  }
  ::close(signals);
  return exit_code < 0 ? kExitFailed : exit_code;
}

int RunPlain(Client& client, const TopCommand& command) {
  std::optional<v1::GetStatusResponse> before;
  uint32_t lines = 0;
  grpc::ClientContext context;
  const Interrupter interrupter({SIGINT, SIGTERM, SIGHUP});
  const std::stop_callback cancel(interrupter.token(), [&context] { context.TryCancel(); });
  const Status status =
      client.WatchStatus(command.interval_seconds, context, [&](const v1::GetStatusResponse& now) {
        const Rates rates = before ? RatesBetween(*before, now) : Rates();
        before = now;
        ++lines;
        return std::printf("%s\n", PlainLine(now, rates).c_str()) > 0 && std::fflush(stdout) == 0 &&
               (command.count == 0 || lines < command.count);
      });
  if (command.count > 0 && lines >= command.count) return kExitOk;
  if (interrupter.interrupted()) return kExitInterrupted;
  PrintError(status.ok() ? UnavailableError("the daemon ended the status stream") : status,
             /*json=*/false);
  return kExitFailed;
}

}  // namespace

int RunTopCommand(const std::string& connect, const TopCommand& command) {
  BlockSignals({SIGINT, SIGTERM, SIGHUP, SIGWINCH});
  int exit_code = kExitOk;
  std::optional<Client> client = ConnectOrExplain(connect, /*json=*/false, &exit_code);
  if (!client) return exit_code;
  const bool terminal = IsTerminal(STDOUT_FILENO) && IsTerminal(STDIN_FILENO);
  return terminal && command.count == 0 ? RunOnScreen(*client, command)
                                        : RunPlain(*client, command);
}

}  // namespace thimble
