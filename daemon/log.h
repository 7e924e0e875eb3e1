// The log: one line an event, key=value, on standard error.
//
//   level=info event=plan groups=74 peak="3.1 MiB"
//
// Under journald (JOURNAL_STREAM names what standard error is) each line has its priority in front,
// "<6>", and neither level nor time; elsewhere it begins with the UTC time. Lines less severe than
// --log-level are not written. Prompts and generated text are never logged above debug. Called by:
// main, the engine, the event loop, gRPC's own messages (from its threads: a line is one write).
// Memory: one line while it is written.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "storage/base/status.h"

namespace thimble {

// syslog(3)'s: never change these values.
enum class LogLevel : uint8_t { kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7 };
std::string_view LogLevelName(LogLevel level);  // "error", "warning", "notice", "info", "debug"
Result<LogLevel> ParseLogLevel(std::string_view text);

// The least severe lines that are written; kInfo until it is set. For any thread.
void SetLogLevel(LogLevel level);
[[nodiscard]] bool LogsLevel(LogLevel level);

// Written by its destructor: LogLine(LogLevel::kInfo, "socket").Add("address", address);
class LogLine {
 public:
  LogLine(LogLevel level, std::string_view event);
  ~LogLine();
  LogLine(const LogLine&) = delete;
  LogLine& operator=(const LogLine&) = delete;

  // A value with spaces, quotes, '=' or control characters is quoted and escaped.
  LogLine& Add(std::string_view key, std::string_view value);
  template <std::integral T>
  LogLine& Add(std::string_view key, T value) {
    return Raw(key, std::to_string(value));
  }
  // "3.1 MiB"; UINT64_MAX is "none".
  LogLine& AddBytes(std::string_view key, uint64_t bytes);

  // Empty where it will not be written.
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  LogLine& Raw(std::string_view key, std::string_view value);
  bool written_;  // false: too little severe for the level in force
  std::string text_;
};

}  // namespace thimble
