#include "daemon/log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

std::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kNotice:
      return "notice";
    case LogLevel::kInfo:
      return "info";
  }
  return "info";
}

std::string Prefix(LogLevel level) {
  // Read once: a line may be written by any of gRPC's threads.
  static const bool journald = std::getenv("JOURNAL_STREAM") != nullptr;
  if (journald) return "<" + std::to_string(static_cast<int>(level)) + ">";
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  const size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(text.data(), n) + " level=" + std::string(LevelName(level)) + " ";
}

bool IsPlain(char c) { return c > ' ' && c != '"' && c != '\\' && c != '=' && c != 0x7f; }

}  // namespace

LogLine::LogLine(LogLevel level, std::string_view event) : text_(Prefix(level)) {
  text_ += "event=";
  text_ += event;
}

LogLine::~LogLine() {
  text_ += '\n';
  // A log that cannot be written has nowhere to say so.
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text_.data(), text_.size());
}

LogLine& LogLine::Raw(std::string_view key, std::string_view value) {
  text_ += ' ';
  text_ += key;
  text_ += '=';
  text_ += value;
  return *this;
}

LogLine& LogLine::Add(std::string_view key, std::string_view value) {
  // Bytes above 0x7f are part of UTF-8 names and paths; char is signed here and unsigned on ARM.
  const auto plain = [](char c) { return IsPlain(c) || static_cast<unsigned char>(c) >= 0x80; };
  if (!value.empty() && std::all_of(value.begin(), value.end(), plain)) return Raw(key, value);
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += "\\x";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  quoted += '"';
  return Raw(key, quoted);
}

LogLine& LogLine::AddBytes(std::string_view key, uint64_t bytes) {
  return Add(key, bytes == UINT64_MAX ? std::string("none") : FormatBytes(bytes));
}

}  // namespace thimble
