#include "client/bench_child.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <iterator>
#include <system_error>
#include <thread>
#include <utility>

namespace thimble {
namespace {

// What a signal handler may touch.
std::atomic<pid_t> running_child{0};
std::atomic<bool> interrupted{false};
static_assert(std::atomic<pid_t>::is_always_lock_free);

void OnInterrupt(int /*signal*/) {
  interrupted = true;
  if (const pid_t pid = running_child; pid > 0) ::kill(pid, SIGKILL);
}

// Between fork and exec of a process that has gRPC's threads only calls that are safe in a signal
// handler are allowed; everything is prepared before. The number of the step and errno are told
// through the pipe; it closes by itself on exec.
enum Step : int { kGroup, kProcessor, kOutput, kExec };

[[noreturn]] void Fail(int report, Step step) {
  const int message[2] = {step, errno};
  (void)!::write(report, static_cast<const void*>(message), sizeof message);
  ::_exit(127);
}

[[noreturn]] void Become(const ChildOptions& options, char* const* argv, const sigset_t& no_signals,
                         int report) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const std::string& file : options.procs_files) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ::write(fd, "0", 1) != 1) Fail(report, kGroup);
    ::close(fd);
  }
  if (options.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options.cpu, &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0) Fail(report, kProcessor);
  }
  const int null = ::open("/dev/null", O_RDONLY);
  const int out = ::open(options.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (null < 0 || out < 0 || ::dup2(null, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) {
    Fail(report, kOutput);
  }
  (void)::signal(SIGPIPE, SIG_DFL);
  (void)::sigprocmask(SIG_SETMASK, &no_signals, nullptr);
  ::execvp(argv[0], argv);
  Fail(report, kExec);
}

Status StartError(const ChildOptions& options, Step step, int error) {
  switch (step) {
    case kGroup:
      return ErrnoError(error, "enter a control group");
    case kProcessor:
      return ErrnoError(error, "run on processor " + std::to_string(options.cpu));
    case kOutput:
      return ErrnoError(error, "open " + options.output);
    case kExec:
      break;
  }
  return ErrnoError(error, "run " + options.arguments.front());
}

// The last two lines, as one: a program says what is wrong, and perhaps then where to read on.
std::string LastLines(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  size_t end = text.rfind('\n');
  if (end == std::string::npos) return text;
  text[end] = ' ';
  end = text.rfind('\n', end);
  return end == std::string::npos ? text : text.substr(end + 1);
}

}  // namespace

void HandleInterrupts() {
  (void)std::signal(SIGINT, OnInterrupt);
  (void)std::signal(SIGTERM, OnInterrupt);
}

bool Interrupted() { return interrupted; }

Result<std::unique_ptr<Child>> Child::Start(const ChildOptions& options) {
  if (interrupted) return CancelledError("interrupted");
  std::vector<std::string> words = options.arguments;
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  sigset_t no_signals;
  sigemptyset(&no_signals);
  int pipe[2] = {-1, -1};
  if (::pipe2(static_cast<int*>(pipe), O_CLOEXEC) != 0) return ErrnoError(errno, "pipe");
  const pid_t pid = ::fork();
  if (pid == 0) Become(options, argv.data(), no_signals, pipe[1]);
  const int fork_error = errno;
  ::close(pipe[1]);
  int message[2] = {0, 0};
  ssize_t n = 0;
  if (pid > 0) {
    do {
      n = ::read(pipe[0], static_cast<void*>(message), sizeof message);
    } while (n < 0 && errno == EINTR);
  }
  ::close(pipe[0]);
  if (pid < 0) return ErrnoError(fork_error, "fork");
  std::unique_ptr<Child> child(new Child(pid, options));
  running_child = pid;
  if (n == static_cast<ssize_t>(sizeof message)) {
    return StartError(options, static_cast<Step>(message[0]), message[1]);
  }
  return child;
}

Child::~Child() {
  if (Running()) {
    ::kill(pid_, SIGKILL);
    (void)Finish(std::chrono::seconds(10));
  }
  if (running_child == pid_) running_child = 0;
}

bool Child::Running() {
  if (ended_) return false;
  pid_t done = 0;
  do {
    done = ::waitpid(pid_, &status_, WNOHANG);
  } while (done < 0 && errno == EINTR);
  ended_ = done != 0;
  return !ended_;
}

Status Child::Finish(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  bool killed = false;
  while (Running()) {
    if (!killed && std::chrono::steady_clock::now() >= end) {
      ::kill(pid_, SIGKILL);
      killed = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const std::string& program = options_.arguments.front();
  if (interrupted) return CancelledError("interrupted");
  if (killed) {
    return DeadlineExceededError(program + " ran for more than " + std::to_string(limit.count()) +
                                 " s");
  }
  if (WIFSIGNALED(status_)) {
    return AbortedError(program + " was ended by signal " + std::to_string(WTERMSIG(status_)));
  }
  if (WEXITSTATUS(status_) != 0) {
    return AbortedError(program + " ended with status " + std::to_string(WEXITSTATUS(status_)) +
                        ": " + LastLines(Output()));
  }
  return {};
}

Status Child::Stop(std::chrono::seconds limit) {
  if (Running()) ::kill(pid_, SIGTERM);
  return Finish(limit);
}

std::string Child::Output() const {
  std::ifstream file(options_.output);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace thimble
