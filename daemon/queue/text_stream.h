// From the bytes of tokens to the text that may be shown: stop strings cut off, whole UTF-8
// characters. Called by: the scheduler, one for each sink. Memory: under 300 bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/tokenizer.h"
#include "daemon/queue/stop_matcher.h"

namespace thimble {

class TextStream {
 public:
  // `stops` must outlive the stream.
  explicit TextStream(const std::vector<std::string>& stops) : matcher_(stops) {}

  // What can be shown once the bytes of the next token have come; perhaps nothing yet.
  std::string Push(std::string_view bytes) {
    std::string text;
    matcher_.Push(bytes, &text);
    return joiner_.Push(text);
  }
  // The rest, at the end of the text.
  std::string Flush() {
    std::string text = joiner_.Push(matcher_.Flush());
    text += joiner_.Flush();
    return text;
  }

 private:
  StopMatcher matcher_;
  Utf8Joiner joiner_;
};

}  // namespace thimble
