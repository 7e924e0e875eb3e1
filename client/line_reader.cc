#include "client/line_reader.h"

#include <histedit.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "client/terminal.h"

namespace thimble {
namespace {

constexpr int kHistoryLines = 500;

class PlainReader final : public LineReader {
 public:
  Input Read(const std::string& /*prompt*/, std::string* line) override {
    if (!std::getline(std::cin, *line)) return Input::kEnd;
    if (!line->empty() && line->back() == '\r') line->pop_back();
    return Input::kLine;
  }
};

class TerminalReader final : public LineReader {
 public:
  explicit TerminalReader(std::string history_path) : history_path_(std::move(history_path)) {
    // libedit reads wide characters by the locale's rules; text is UTF-8 whatever the locale says.
    if (!UseLocale()) (void)std::setlocale(LC_CTYPE, "C.UTF-8");
    // The line is drawn where the answers go, unless those go to a file.
    FILE* out = ::isatty(STDOUT_FILENO) == 1 ? stdout : stderr;
    edit_ = el_init("thimble", stdin, out, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_path_.empty()) history(history_, &event, H_LOAD, history_path_.c_str());
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, &TerminalReader::Prompt);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_SIGNAL, 1);  // the terminal is as it was after SIGTERM, SIGHUP, Ctrl-Z
    el_set(edit_, EL_HIST, history, history_);
    el_source(edit_, nullptr);  // the user's ~/.editrc
    // While a line is edited, Ctrl-C and Ctrl-Z are keys like others. (Taking their characters away
    // from the terminal's driver would not do: libedit puts them back.)
    el_set(edit_, EL_SETTY, "-d", "-isig", nullptr);
    el_set(edit_, EL_ADDFN, "thimble-interrupt", "Leave the line", &TerminalReader::Interrupt);
    el_set(edit_, EL_BIND, "^C", "thimble-interrupt", nullptr);
    el_set(edit_, EL_ADDFN, "thimble-suspend", "Stop the program", &TerminalReader::Suspend);
    el_set(edit_, EL_BIND, "^Z", "thimble-suspend", nullptr);
  }
  ~TerminalReader() override {
    history_end(history_);
    el_end(edit_);
  }
  TerminalReader(const TerminalReader&) = delete;
  TerminalReader& operator=(const TerminalReader&) = delete;

  Input Read(const std::string& prompt, std::string* line) override {
    prompt_ = prompt;
    interrupted_ = false;
    int count = 0;
    const char* text = el_gets(edit_, &count);
    if (interrupted_) {
      el_reset(edit_);
      return Input::kInterrupted;
    }
    if (text == nullptr || count <= 0) return Input::kEnd;
    *line = text;
    while (!line->empty() && (line->back() == '\n' || line->back() == '\r')) line->pop_back();
    if (!line->empty()) Remember(*line);
    return Input::kLine;
  }

 private:
  static TerminalReader& Self(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return *static_cast<TerminalReader*>(self);
  }
  static char* Prompt(EditLine* edit) { return Self(edit).prompt_.data(); }
  static unsigned char Interrupt(EditLine* edit, int /*key*/) {
    Self(edit).interrupted_ = true;
    return CC_EOF;
  }

  static unsigned char Suspend(EditLine* /*edit*/, int /*key*/) {
    (void)std::raise(SIGTSTP);  // libedit's handler takes care of the terminal
    return CC_REFRESH;
  }

  // Written at once: what was typed is there after a crash too. For its owner's eyes only.
  void Remember(const std::string& line) {
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (history_path_.empty()) return;
    const mode_t mask = ::umask(0077);
    history(history_, &event, H_SAVE, history_path_.c_str());
    ::umask(mask);
  }

  const std::string history_path_;
  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  std::string prompt_;
  bool interrupted_ = false;
};

}  // namespace

std::unique_ptr<LineReader> LineReader::Make(bool terminal, const std::string& history_path) {
  if (terminal) return std::make_unique<TerminalReader>(history_path);
  return std::make_unique<PlainReader>();
}

std::string HistoryPath() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path directory;
  if (state != nullptr && *state == '/') {  // the specification: a relative path is ignored
    directory = state;
  } else if (home != nullptr && *home != '\0') {
    directory = std::filesystem::path(home) / ".local/state";
  } else {
    return {};
  }
  directory /= "thimble";
  std::error_code error;
  const mode_t mask = ::umask(0077);
  std::filesystem::create_directories(directory, error);
  ::umask(mask);
  return error ? std::string() : (directory / "chat_history").string();
}

}  // namespace thimble
