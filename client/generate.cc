// `thimble generate`: streams a generation to standard output. Memory: one event, and 4 bytes for
// each token.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <utility>

#include "client/client.h"
#include "client/common.h"
#include "client/event_json.h"
#include "client/fill_sampling.h"
#include "client/interrupt.h"
#include "client/progress.h"
#include "client/resume.h"
#include "client/terminal.h"
#include "client/utf8_check.h"

namespace thimble {
namespace {

Result<v1::GenerateRequest> MakeRequest(const GenerateCommand& command) {
  v1::GenerateRequest request;
  if (command.tokens) {
    THIMBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseTokenIds(*command.tokens));
    request.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  } else {
    THIMBLE_ASSIGN_OR_RETURN(*request.mutable_prompt(),
                             TextOrStandardInput("PROMPT", command.prompt));
  }
  THIMBLE_RETURN_IF_ERROR(CheckUtf8("--request-id", command.request_id));
  THIMBLE_RETURN_IF_ERROR(CheckStops(command.sampling));
  if (command.sampling.max_tokens) request.set_max_tokens(*command.sampling.max_tokens);
  FillSampling(command.sampling, request.mutable_sampling());
  for (const std::string& stop : command.sampling.stop) request.add_stop(stop);
  request.set_ignore_eos(command.ignore_eos);
  request.set_parse_special(command.parse_special);
  request.set_request_id(command.request_id);
  request.set_detach(command.detach);
  request.set_log_probabilities(command.json);  // only there is a place for them
  return request;
}

bool Put(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

// Where the events of one generation go.
class Output {
 public:
  Output(const GenerateCommand& command, Progress& progress)
      : json_(command.json),
        text_is_seen_(IsTerminal(STDOUT_FILENO) && !command.json),
        progress_(progress) {}

  // False where standard output is gone (a closed pipe): then the call is cancelled.
  bool Show(const v1::GenerateEvent& event) {
    if (event.has_token()) ++tokens_;
    if (event.has_done()) done_ = event.done();
    if (!event.has_token()) {
      const std::string text = ProgressText(event);
      if (!text.empty()) progress_.Show(text);
    } else if (text_is_seen_) {
      progress_.Hide();
    } else {
      progress_.Show(std::to_string(tokens_) + (tokens_ == 1 ? " token" : " tokens"));
    }
    if (json_) {
      const std::string line = EventJson(event);
      return line.empty() || Put(line + "\n");
    }
    if (event.has_token()) {
      line_open_ = true;
      line_broken_ = false;
      return Put(event.token().raw().empty() ? event.token().text() : event.token().raw());
    }
    if (!event.has_done()) return true;
    progress_.Hide();
    line_open_ = false;
    return Put(event.done().tail() + "\n");
  }

  void Lost(const Status& why, std::chrono::milliseconds wait) {
    if (!std::exchange(lost_before_, true) && !IsTerminal(STDERR_FILENO)) {
      (void)std::fprintf(stderr, "thimble: %s; trying again\n", why.ToString().c_str());
    }
    // The spinner has a line of its own: in the middle of a line of text it would overwrite that.
    if (text_is_seen_ && line_open_ && !std::exchange(line_broken_, true)) {
      (void)std::fputs("\n", stderr);
    }
    progress_.Show(why.message() + "; next try in " +
                   ShortTime(static_cast<double>(wait.count()) / 1000));
  }

  // After the last event: nothing is left open.
  void Finish() {
    progress_.Hide();
    if (line_open_) (void)Put("\n");
  }

  [[nodiscard]] const v1::Done& done() const { return done_; }

 private:
  const bool json_;
  const bool text_is_seen_;
  Progress& progress_;
  v1::Done done_;
  uint32_t tokens_ = 0;
  bool line_open_ = false;    // text without its end of line
  bool line_broken_ = false;  // on the terminal, for the spinner
  bool lost_before_ = false;
};

}  // namespace

int RunGenerateCommand(const std::string& connect, const GenerateCommand& command) {
  const Result<v1::GenerateRequest> request = MakeRequest(command);
  if (!request.ok()) {
    PrintError(request.status(), command.json);
    return kExitUsage;
  }
  BlockSignals({SIGINT, SIGTERM});
  int exit_code = kExitOk;
  std::optional<Client> client = ConnectOrExplain(connect, command.json, &exit_code);
  if (!client) return exit_code;

  Progress progress(IsTerminal(STDERR_FILENO), UseLocale());
  Output output(command, progress);
  ResumeOptions resume;
  if (!command.request_id.empty()) {
    resume.patience = std::chrono::seconds(command.reconnect_seconds);
  }
  resume.on_lost = [&](const Status& why, std::chrono::milliseconds wait) {
    output.Lost(why, wait);
  };
  const Interrupter interrupter({SIGINT, SIGTERM});
  progress.Show("waiting for the daemon");
  const Status status = StreamAndResume(
      *client,
      [&](Client& connected, grpc::ClientContext& context, const Client::OnEvent& on_event) {
        return connected.Generate(*request, context, on_event);
      },
      resume, interrupter.token(),
      [&](const v1::GenerateEvent& event) { return output.Show(event); });
  output.Finish();
  if (command.stats && output.done().reason() != v1::FINISH_REASON_UNSPECIFIED) {
    PrintStatistics(output.done());
  }
  if (status.ok()) return kExitOk;
  PrintError(interrupter.interrupted() ? CancelledError("interrupted") : status, command.json);
  if (interrupter.interrupted()) return kExitInterrupted;
  if (status.code() == StatusCode::kUnavailable && command.request_id.empty()) {
    (void)std::fprintf(stderr,
                       "thimble: with --request-id NAME a generation goes on after the daemon's "
                       "restart\n");
  }
  return kExitFailed;
}

}  // namespace thimble
