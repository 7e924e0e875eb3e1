// `thimble chat`: a conversation with the model, in a terminal or line by line from anything else.
// Called by: main. Memory: the messages, and libedit's on a terminal.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <optional>
#include <random>
#include <utility>

#include "client/client.h"
#include "client/common.h"
#include "client/conversation.h"
#include "client/fill_sampling.h"
#include "client/interrupt.h"
#include "client/line_reader.h"
#include "client/progress.h"
#include "client/resume.h"
#include "client/terminal.h"
#include "client/utf8_check.h"

namespace thimble {
namespace {

constexpr uint32_t kDefaultMaxTokens = 512;
constexpr std::chrono::seconds kPatience{60};  // after a lost connection

constexpr const char* kHelp =
    "/system [TEXT]   instructions for the model; without TEXT: what they are\n"
    "/clear           forget the conversation, keep the instructions\n"
    "/retry           another answer to the last message\n"
    "/save FILE       write the conversation, one JSON object a line\n"
    "/load FILE       go on with a saved conversation\n"
    "/stats           statistics after each answer, on or off\n"
    "/help            this\n"
    "/quit            leave; so does Ctrl-D\n"
    "Ctrl-C stops an answer. \"\"\" begins and ends a message of several lines; // is a / that\n"
    "begins a message.\n";

// A name under which an answer goes on after the daemon's restart.
std::string RandomName() {
  std::random_device random;
  char name[40];
  (void)std::snprintf(static_cast<char*>(name), sizeof name, "chat-%08x%08x%08x", random(),
                      random(), random());
  return static_cast<char*>(name);
}

std::string Trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

class Chat {
 public:
  Chat(const ChatCommand& command, Client client, const v1::GetModelResponse& model)
      : command_(command),
        client_(std::move(client)),
        context_tokens_(model.context_tokens()),
        max_tokens_(command.sampling.max_tokens.value_or(
            std::min(kDefaultMaxTokens, model.context_tokens()))),
        interactive_(IsTerminal(STDIN_FILENO)),
        stats_(command.stats),
        progress_(IsTerminal(STDERR_FILENO), UseLocale()) {
    conversation_.SetSystem(command.system);
  }

  // The process's exit code.
  int Run(const v1::GetModelResponse& model) {
    reader_ = LineReader::Make(interactive_, interactive_ ? HistoryPath() : "");
    if (interactive_) {
      Notice(model.name() + ", context of " + std::to_string(context_tokens_) +
             " tokens. /help lists the commands, Ctrl-D leaves.");
    }
    int exit_code = kExitOk;
    while (!quit_) {
      std::string text;
      const Input input = ReadMessage(&text);
      if (input == Input::kEnd) break;
      if (input == Input::kInterrupted) {
        Notice("Ctrl-D or /quit leaves.");
        continue;
      }
      exit_code = Handle(text);
      if (exit_code != kExitOk && !interactive_) return exit_code;
    }
    return interactive_ ? kExitOk : exit_code;
  }

 private:
  void Notice(const std::string& text) const {
    const bool dim = IsTerminal(STDERR_FILENO);
    (void)std::fprintf(stderr, "%s%s%s\n", dim ? "\x1b[2m" : "", text.c_str(),
                       dim ? "\x1b[22m" : "");
  }

  // A line, or the lines between two """.
  Input ReadMessage(std::string* text) {
    const Input input = ReadLine("> ", text);
    if (input != Input::kLine || !text->starts_with("\"\"\"")) return input;
    std::string line = text->substr(3);
    text->clear();
    while (!line.ends_with("\"\"\"")) {
      if (!text->empty() || !line.empty()) *text += line + "\n";
      const Input more = ReadLine("... ", &line);
      if (more != Input::kLine) return more;
    }
    *text += line.substr(0, line.size() - 3);
    return Input::kLine;
  }

  Input ReadLine(const std::string& prompt, std::string* line) {
    const Input input = reader_->Read(prompt, line);
    if (interactive_ && input != Input::kLine) (void)std::fputs("\n", stderr);
    return input;
  }

  // A message or a command; an exit code.
  int Handle(const std::string& text) {
    if (Trim(text).empty()) return kExitOk;
    if (text.starts_with("//")) return Say(text.substr(1));
    if (!text.starts_with('/')) return Say(text);
    const size_t space = text.find_first_of(" \t\n");
    const std::string word = text.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : Trim(text.substr(space));
    const Status status = Do(word, rest);
    if (status.ok()) return retry_ ? Retry() : kExitOk;
    PrintError(status, /*json=*/false);
    return status.code() == StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
  }

  Status Do(const std::string& word, const std::string& rest) {
    retry_ = word == "/retry";
    if (word == "/quit" || word == "/exit" || word == "/bye") {
      quit_ = true;
    } else if (word == "/help" || word == "/?") {
      (void)std::fputs(kHelp, stderr);
    } else if (word == "/clear") {
      conversation_.Clear();
      Notice("The conversation is forgotten.");
    } else if (word == "/stats") {
      stats_ = !stats_;
      Notice(stats_ ? "Statistics after each answer." : "No statistics.");
    } else if (word == "/system") {
      if (rest.empty()) {
        Notice(conversation_.system().empty() ? "No instructions." : conversation_.system());
        return {};
      }
      THIMBLE_RETURN_IF_ERROR(CheckUtf8("/system", rest));
      conversation_.SetSystem(rest);
    } else if (word == "/save" || word == "/load") {
      if (rest.empty()) return InvalidArgumentError(word + ": the name of a file is missing");
      if (word == "/load") {
        THIMBLE_ASSIGN_OR_RETURN(conversation_, Conversation::Load(rest));
      } else {
        THIMBLE_RETURN_IF_ERROR(conversation_.Save(rest));
      }
      Notice(std::to_string(conversation_.messages().size()) +
             (word == "/load" ? " messages from " : " messages in ") + rest);
    } else if (!retry_) {
      return InvalidArgumentError("\"" + word + "\" is no command; /help lists them");
    }
    return {};
  }

  int Retry() {
    retry_ = false;
    Conversation without = conversation_;
    (void)without.DropLast(v1::ROLE_ASSISTANT);
    if (without.messages().empty() || without.messages().back().role != v1::ROLE_USER) {
      PrintError(FailedPreconditionError("/retry: there is no message to answer"), false);
      return kExitFailed;
    }
    std::swap(conversation_, without);
    ++retries_;
    const int exit_code = Answer();
    if (answered_.empty()) conversation_ = std::move(without);  // the old answer stays
    return exit_code;
  }

  int Say(const std::string& text) {
    const Status valid = CheckUtf8("the message", text);
    if (!valid.ok()) {
      PrintError(valid, /*json=*/false);
      return kExitUsage;
    }
    retries_ = 0;
    conversation_.Add(v1::ROLE_USER, text);
    const int exit_code = Answer();
    if (answered_.empty()) (void)conversation_.DropLast(v1::ROLE_USER);  // to be asked again
    return exit_code;
  }

  // Asks for the next message and adds what was told of it, if anything.
  int Answer() {
    LeaveOut(conversation_.Fit(context_tokens_, std::min(max_tokens_, context_tokens_ / 4)));
    // Line by line, Ctrl-C ends the program as it does any other.
    std::optional<Interrupter> interrupter;
    if (interactive_) interrupter.emplace(std::initializer_list<int>{SIGINT});
    const std::stop_token stop = interrupter ? interrupter->token() : std::stop_token();
    Status status = Ask(stop);
    while (status.code() == StatusCode::kOutOfRange && answered_.empty()) {
      const size_t n = conversation_.DropOldest();
      if (n == 0) break;
      LeaveOut(n);
      status = Ask(stop);
    }
    if (!answered_.empty()) conversation_.Add(v1::ROLE_ASSISTANT, answered_);
    if (stop.stop_requested()) {
      Notice("(stopped)");
      return kExitOk;
    }
    if (!status.ok()) {
      PrintError(status, /*json=*/false);
      return kExitFailed;
    }
    conversation_.Counted(done_.prompt_tokens() + done_.generated_tokens());
    if (done_.reason() == v1::FINISH_REASON_LENGTH) {
      Notice("(cut off after " + std::to_string(done_.generated_tokens()) +
             " tokens, see --max-tokens)");
    } else if (done_.reason() == v1::FINISH_REASON_CONTEXT) {
      Notice("(cut off: the context of " + std::to_string(context_tokens_) + " tokens is full)");
    }
    if (stats_) PrintStatistics(done_);
    return kExitOk;
  }

  void LeaveOut(size_t messages) const {
    if (messages == 0) return;
    Notice("(the context of " + std::to_string(context_tokens_) +
           " tokens is nearly full: the oldest " + std::to_string(messages) +
           " messages are left out from here on)");
  }

  Status Ask(const std::stop_token& stop) {
    answered_.clear();
    done_.Clear();
    v1::ChatRequest request;
    conversation_.Fill(request.mutable_conversation());
    request.set_max_tokens(max_tokens_);
    FillSampling(command_.sampling, request.mutable_sampling());
    if (command_.sampling.seed) {
      request.mutable_sampling()->set_seed(*command_.sampling.seed + retries_);
    }
    for (const std::string& text : command_.sampling.stop) request.add_stop(text);
    request.set_request_id(RandomName());
    ResumeOptions resume;
    resume.patience = kPatience;
    resume.on_lost = [this](const Status& why, std::chrono::milliseconds) {
      if (!answered_.empty() && IsTerminal(STDOUT_FILENO) && !line_broken_) {
        (void)std::fputs("\n", stderr);  // the spinner has a line of its own
        line_broken_ = true;
      }
      progress_.Show(why.message() + "; trying again");
    };
    progress_.Show("waiting for the daemon");
    const Status status = StreamAndResume(
        client_,
        [&](Client& client, grpc::ClientContext& context, const Client::OnEvent& on_event) {
          return client.Chat(request, context, on_event);
        },
        resume, stop, [this](const v1::GenerateEvent& event) { return Show(event); });
    progress_.Hide();
    if (!answered_.empty()) (void)std::fputs("\n", stdout);
    (void)std::fflush(stdout);
    return status;
  }

  // False where standard output is gone.
  bool Show(const v1::GenerateEvent& event) {
    if (!event.has_token() && !event.has_done()) {
      progress_.Show(ProgressText(event));
      return true;
    }
    progress_.Hide();
    if (event.has_done()) done_ = event.done();
    const std::string& text = event.has_done() ? done_.tail() : event.token().text();
    if (text.empty()) return true;
    answered_ += text;
    line_broken_ = false;
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
           std::fflush(stdout) == 0;
  }

  const ChatCommand& command_;
  Client client_;
  const uint32_t context_tokens_;
  const uint32_t max_tokens_;
  const bool interactive_;
  bool stats_;
  Progress progress_;
  std::unique_ptr<LineReader> reader_;
  Conversation conversation_;
  std::string answered_;  // of the running or last answer
  v1::Done done_;
  uint64_t retries_ = 0;
  bool retry_ = false;
  bool quit_ = false;
  bool line_broken_ = false;
};

}  // namespace

int RunChatCommand(const std::string& connect, const ChatCommand& command) {
  for (const Status& status :
       {CheckUtf8("--system", command.system), CheckStops(command.sampling)}) {
    if (status.ok()) continue;
    PrintError(status, /*json=*/false);
    return kExitUsage;
  }
  if (IsTerminal(STDIN_FILENO)) BlockSignals({SIGINT});
  int exit_code = kExitOk;
  std::optional<Client> client = ConnectOrExplain(connect, /*json=*/false, &exit_code);
  if (!client) return exit_code;
  const Result<v1::GetModelResponse> model = client->GetModel();
  if (!model.ok()) {
    PrintError(model.status(), /*json=*/false);
    return kExitFailed;
  }
  if (model->chat_template().empty()) {
    PrintError(
        FailedPreconditionError("chat with " + model->name() + ": " + model->chat_template_note()),
        /*json=*/false);
    (void)std::fprintf(stderr, "thimble: this model continues a text: thimble generate \"...\"\n");
    return kExitFailed;
  }
  return Chat(command, std::move(*client), *model).Run(*model);
}

}  // namespace thimble
