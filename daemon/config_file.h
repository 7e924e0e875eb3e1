// The configuration file, /etc/thimble/thimbled.conf: lines of `key = value`.
//
// A key is an option's name without the dashes. A line that begins with '#' is a comment, and so is
// the rest of a line after a '#' that follows a blank. A value may stand in double quotes, which
// keep blanks and '#' at its ends; nothing is escaped. A key may stand once.
//
// Called by: the options' sources. Memory: the file, kMaxConfigBytes at most, while it is read.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

inline constexpr size_t kMaxConfigBytes = 64 << 10;

struct ConfigLine {
  size_t line = 0;  // from 1
  std::string key;
  std::string value;
};

// The lines that set something. What is malformed is told in `problems`, one entry each, as
// "FILE:LINE: what".
std::vector<ConfigLine> ParseConfigText(std::string_view text, const std::string& file,
                                        std::vector<std::string>& problems);

// The file's text. NOT_FOUND where there is none; a directory, or more than kMaxConfigBytes, is
// INVALID_ARGUMENT. A device such as /dev/null is read like a file.
Result<std::string> ReadConfigFile(const std::string& file);

}  // namespace thimble
