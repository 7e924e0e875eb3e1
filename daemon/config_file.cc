#include "daemon/config_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace thimble {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// Up to a '#' at the start or after a blank, outside of quotes.
std::string_view WithoutComment(std::string_view text) {
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') quoted = !quoted;
    const bool begins = i == 0 || kBlanks.find(text[i - 1]) != std::string_view::npos;
    if (text[i] == '#' && begins && !quoted) return text.substr(0, i);
  }
  return text;
}

// Empty: fine, and `value` is without its quotes.
std::string Unquote(std::string_view& value) {
  const auto quotes = std::count(value.begin(), value.end(), '"');
  if (quotes == 0) return {};
  if (quotes != 2 || value.size() < 2 || value.front() != '"' || value.back() != '"') {
    return "quotes stand around the whole value or not at all";
  }
  value = value.substr(1, value.size() - 2);
  return {};
}

std::string ParseLine(std::string_view text, ConfigLine* out) {
  if (text.find('\0') != std::string_view::npos) return "a zero byte: this is no text";
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    return "\"" + std::string(text) + "\": expected key = value";
  }
  out->key = Trim(text.substr(0, equals));
  std::string_view value = Trim(text.substr(equals + 1));
  if (out->key.empty()) return "no key before the \"=\"";
  if (std::string problem = Unquote(value); !problem.empty()) {
    return out->key + " = " + std::string(value) + ": " + problem;
  }
  out->value = value;
  return {};
}

}  // namespace

std::vector<ConfigLine> ParseConfigText(std::string_view text, const std::string& file,
                                        std::vector<std::string>& problems) {
  std::vector<ConfigLine> lines;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view content = Trim(WithoutComment(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (content.empty()) continue;
    ConfigLine line;
    line.line = number;
    std::string problem = ParseLine(content, &line);
    if (problem.empty()) {
      const auto same = std::find_if(lines.begin(), lines.end(), [&](const ConfigLine& earlier) {
        return earlier.key == line.key;
      });
      if (same == lines.end()) {
        lines.push_back(std::move(line));
        continue;
      }
      problem = line.key + ": stands in line " + std::to_string(same->line) + " already";
    }
    problems.push_back(file + ":" + std::to_string(number) + ": ");
    problems.back() += problem;
  }
  return lines;
}

Result<std::string> ReadConfigFile(const std::string& file) {
  const std::string what = "read the configuration file " + file;
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoError(errno, what);
  std::string text(kMaxConfigBytes + 1, '\0');
  size_t size = 0;
  ssize_t n = 0;
  do {
    n = ::read(fd, text.data() + size, text.size() - size);
    if (n > 0) size += static_cast<size_t>(n);
  } while ((n > 0 && size < text.size()) || (n < 0 && errno == EINTR));
  const int error = n < 0 ? errno : 0;
  ::close(fd);
  if (error != 0) return InvalidArgumentError(ErrnoError(error, what).message());
  if (size > kMaxConfigBytes) {
    return InvalidArgumentError(what + ": it has more than " + std::to_string(kMaxConfigBytes) +
                                " bytes");
  }
  text.resize(size);
  return text;
}

}  // namespace thimble
