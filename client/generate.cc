// `thimble generate`: streams a generation to standard output. Memory: one event.
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <thread>
#include <utility>

#include "client/client.h"
#include "client/commands.h"
#include "client/event_json.h"

namespace thimble {
namespace {

Result<v1::GenerateRequest> MakeRequest(const GenerateCommand& command) {
  v1::GenerateRequest request;
  if (!command.tokens.empty()) {
    THIMBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseTokenIds(command.tokens));
    request.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  } else if (command.prompt == "-") {
    request.set_prompt(std::string(std::istreambuf_iterator<char>(std::cin), {}));
  } else {
    request.set_prompt(command.prompt);
  }
  if (command.max_tokens) request.set_max_tokens(*command.max_tokens);
  v1::SamplingOptions& sampling = *request.mutable_sampling();
  if (command.temperature) sampling.set_temperature(*command.temperature);
  if (command.top_k) sampling.set_top_k(*command.top_k);
  if (command.top_p) sampling.set_top_p(*command.top_p);
  if (command.min_p) sampling.set_min_p(*command.min_p);
  if (command.repeat_penalty) sampling.set_repeat_penalty(*command.repeat_penalty);
  if (command.repeat_last_n) sampling.set_repeat_last_n(*command.repeat_last_n);
  if (command.presence_penalty) sampling.set_presence_penalty(*command.presence_penalty);
  if (command.frequency_penalty) sampling.set_frequency_penalty(*command.frequency_penalty);
  if (command.seed) sampling.set_seed(*command.seed);
  for (const std::string& stop : command.stop) request.add_stop(stop);
  request.set_ignore_eos(command.ignore_eos);
  request.set_parse_special(command.parse_special);
  request.set_request_id(command.request_id);
  request.set_detach(command.detach);
  request.set_log_probabilities(command.json);  // only there is a place for them
  return request;
}

// Cancels `context` on Ctrl-C or SIGTERM. The signals are waited for on a thread of their own,
// since TryCancel may not be called from a signal handler; they must be blocked before any other
// thread starts (BlockSignals).
class Interrupter {
 public:
  static sigset_t Signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR2}) sigaddset(&set, signal);
    return set;
  }
  static void BlockSignals() {
    const sigset_t set = Signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
  }

  explicit Interrupter(grpc::ClientContext* context)
      : thread_([this, context] {
          const sigset_t set = Signals();
          int signal = 0;
          while (sigwait(&set, &signal) != 0) {
          }
          if (finished_) return;
          interrupted_ = true;
          context->TryCancel();
        }) {}
  ~Interrupter() {
    finished_ = true;
    pthread_kill(thread_.native_handle(), SIGUSR2);  // wakes it up
    thread_.join();
  }
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;

  [[nodiscard]] bool interrupted() const { return interrupted_; }

 private:
  std::atomic<bool> finished_ = false;
  std::atomic<bool> interrupted_ = false;
  std::thread thread_;
};

bool Put(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

// False where standard output is gone (a closed pipe): then the call is cancelled.
bool Show(const v1::GenerateEvent& event, bool json) {
  if (json) {
    const std::string line = EventJson(event);
    return line.empty() || Put(line + "\n");
  }
  if (event.has_token()) {
    return Put(event.token().raw().empty() ? event.token().text() : event.token().raw());
  }
  if (event.has_done()) return Put(event.done().tail() + "\n");
  return true;
}

void PrintStatistics(const v1::Done& done) {
  const double seconds = done.total_seconds() - done.first_token_seconds();
  const uint32_t later = done.generated_tokens() > 0 ? done.generated_tokens() - 1 : 0;
  (void)std::fprintf(
      stderr,
      "thimble: %s; %u prompt tokens (%u cached), %u generated; queued %.3f s, first token "
      "%.3f s, total %.3f s; %.2f tokens/s\n",
      std::string(FinishReasonText(done.reason())).c_str(), done.prompt_tokens(),
      done.cached_prompt_tokens(), done.generated_tokens(), done.queued_seconds(),
      done.first_token_seconds(), done.total_seconds(), seconds > 0 ? later / seconds : 0.0);
}

}  // namespace

int RunGenerateCommand(const std::string& connect, const GenerateCommand& command) {
  const Result<v1::GenerateRequest> request = MakeRequest(command);
  if (!request.ok()) {
    PrintError(request.status(), command.json);
    return kExitUsage;
  }
  Interrupter::BlockSignals();
  Result<Client> client = Client::Connect(connect);
  if (!client.ok()) {
    PrintError(client.status(), command.json);
    return client.status().code() == StatusCode::kInvalidArgument ? kExitUsage : kExitNoConnection;
  }
  grpc::ClientContext context;
  v1::Done done;
  bool line_open = false;  // text without its end of line
  Status status;
  bool interrupted = false;
  {
    const Interrupter interrupter(&context);
    status = client->Generate(*request, context, [&](const v1::GenerateEvent& event) {
      if (event.has_token() && !command.json) line_open = true;
      if (event.has_done()) {
        done = event.done();
        line_open = false;
      }
      return Show(event, command.json);
    });
    interrupted = interrupter.interrupted();
  }
  if (line_open) (void)Put("\n");
  if (command.stats && done.reason() != v1::FINISH_REASON_UNSPECIFIED) PrintStatistics(done);
  if (status.ok()) return kExitOk;
  PrintError(interrupted ? CancelledError("interrupted") : status, command.json);
  return interrupted ? kExitInterrupted : kExitFailed;
}

}  // namespace thimble
