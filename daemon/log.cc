#include "daemon/log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <ctime>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

std::atomic<LogLevel> least_severe{LogLevel::kInfo};

constexpr LogLevel kLevels[] = {LogLevel::kError, LogLevel::kWarning, LogLevel::kNotice,
                                LogLevel::kInfo, LogLevel::kDebug};

// systemd.exec(5): the variable is "DEVICE:INODE" of the journal's stream. A program that a service
// starts inherits it, and may have been given another standard error.
bool StandardErrorIsTheJournal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat info {};
  if (stream == nullptr || ::fstat(STDERR_FILENO, &info) != 0) return false;
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) == stream;
}

std::string Prefix(LogLevel level) {
  // Asked once: a line may be written by any of gRPC's threads.
  static const bool journald = StandardErrorIsTheJournal();
  if (journald) return "<" + std::to_string(static_cast<int>(level)) + ">";
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  const size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(text.data(), n) + " level=" + std::string(LogLevelName(level)) + " ";
}

bool IsPlain(char c) { return c > ' ' && c != '"' && c != '\\' && c != '=' && c != 0x7f; }

}  // namespace

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kNotice:
      return "notice";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "info";
}

Result<LogLevel> ParseLogLevel(std::string_view text) {
  for (const LogLevel level : kLevels) {
    if (text == LogLevelName(level)) return level;
  }
  return InvalidArgumentError("log level \"" + std::string(text) +
                              "\": expected error, warning, notice, info or debug");
}

void SetLogLevel(LogLevel level) { least_severe.store(level, std::memory_order_relaxed); }

bool LogsLevel(LogLevel level) { return level <= least_severe.load(std::memory_order_relaxed); }

LogLine::LogLine(LogLevel level, std::string_view event) : written_(LogsLevel(level)) {
  if (!written_) return;
  text_ = Prefix(level);
  text_ += "event=";
  text_ += event;
}

LogLine::~LogLine() {
  if (!written_) return;
  text_ += '\n';
  // A log that cannot be written has nowhere to say so.
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text_.data(), text_.size());
}

LogLine& LogLine::Raw(std::string_view key, std::string_view value) {
  if (!written_) return *this;
  text_ += ' ';
  text_ += key;
  text_ += '=';
  text_ += value;
  return *this;
}

LogLine& LogLine::Add(std::string_view key, std::string_view value) {
  if (!written_) return *this;
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
