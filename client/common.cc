// What several commands need. Memory: none kept.
#include <algorithm>
#include <charconv>
#include <cstdio>

#include "client/commands.h"
#include "client/json_line.h"

namespace thimble {

Result<std::vector<int32_t>> ParseTokenIds(const std::string& text) {
  constexpr std::string_view kSeparators = " ,\t\n";
  std::vector<int32_t> ids;
  size_t begin = text.find_first_not_of(kSeparators);
  while (begin != std::string::npos) {
    const size_t end = std::min(text.find_first_of(kSeparators, begin), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end || id < 0) {
      return InvalidArgumentError("--tokens: \"" + text.substr(begin, end - begin) +
                                  "\" is not a token id");
    }
    ids.push_back(id);
    begin = text.find_first_not_of(kSeparators, end);
  }
  if (ids.empty()) return InvalidArgumentError("--tokens: at least one id");
  return ids;
}

void PrintError(const Status& status, bool json) {
  if (json) {
    const std::string line = JsonLine()
                                 .Add("event", "error")
                                 .Add("code", StatusCodeName(status.code()))
                                 .Add("message", status.message())
                                 .str();
    (void)std::printf("%s\n", line.c_str());
    (void)std::fflush(stdout);
  }
  (void)std::fprintf(stderr, "thimble: %s\n", status.ToString().c_str());
}

}  // namespace thimble
