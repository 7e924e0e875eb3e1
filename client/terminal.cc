#include "client/terminal.h"

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <string_view>

namespace thimble {

bool IsTerminal(int fd) {
  const char* term = std::getenv("TERM");
  return ::isatty(fd) == 1 && term != nullptr && *term != '\0' && std::string_view(term) != "dumb";
}

TerminalSize SizeOfTerminal(int fd) {
  winsize size{};
  TerminalSize result;
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0) {
    if (size.ws_col > 0) result.columns = size.ws_col;
    if (size.ws_row > 0) result.rows = size.ws_row;
  }
  return result;
}

bool UseLocale() {
  if (std::setlocale(LC_CTYPE, "") == nullptr) (void)std::setlocale(LC_CTYPE, "C");
  return std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
}

std::string Clip(const std::string& text, int columns) {
  size_t end = 0;
  for (int column = 0; column < columns && end < text.size(); ++column) {
    ++end;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  }
  return text.substr(0, end);
}

}  // namespace thimble
