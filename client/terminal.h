// What the commands need to know of the terminal. Called by: progress, chat, top. Holds nothing.
#pragma once

#include <string>

namespace thimble {

// Whether output to `fd` may be moved about in place: a terminal that is not TERM=dumb.
bool IsTerminal(int fd);

struct TerminalSize {
  int columns = 80;
  int rows = 24;
};
TerminalSize SizeOfTerminal(int fd);

// Takes the character set of the environment over (LC_ALL, LC_CTYPE, LANG); true where it is UTF-8.
bool UseLocale();

// At most `columns` characters of `text`, UTF-8, counting each as one column wide.
std::string Clip(const std::string& text, int columns);

}  // namespace thimble
