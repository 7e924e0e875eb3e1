// Where the lines of `thimble chat` come from: a terminal, with editing and history (libedit), or
// anything else, line by line. Called by: chat. Memory: libedit's, and 500 lines of history.
#pragma once

#include <memory>
#include <string>

namespace thimble {

enum class Input : uint8_t {
  kLine,
  kEnd,          // end of file, Ctrl-D
  kInterrupted,  // Ctrl-C
};

class LineReader {
 public:
  // A terminal's reader where `terminal`, whose history is kept in `history_path` (empty: nowhere).
  static std::unique_ptr<LineReader> Make(bool terminal, const std::string& history_path);
  virtual ~LineReader() = default;

  // The next line without its end. `prompt` is shown on a terminal only.
  virtual Input Read(const std::string& prompt, std::string* line) = 0;
};

// $XDG_STATE_HOME/thimble/chat_history, or under ~/.local/state; the directory is made, for its
// owner only. Empty where neither variable says where.
std::string HistoryPath();

}  // namespace thimble
