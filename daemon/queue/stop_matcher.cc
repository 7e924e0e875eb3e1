#include "daemon/queue/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace thimble {

void StopMatcher::Push(std::string_view bytes, std::string* text) {
  if (stopped_) return;
  if (stops_->empty()) {
    text->append(bytes);
    return;
  }
  for (const char byte : bytes) {
    held_.push_back(byte);
    size_t longest = 0;
    for (const std::string& stop : *stops_) {
      if (held_.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) {
      text->append(held_, 0, held_.size() - longest);
      held_.clear();
      stopped_ = true;
      return;
    }
  }
  // Keep the longest end of `held_` that a stop string begins with.
  size_t keep = 0;
  for (const std::string& stop : *stops_) {
    for (size_t n = std::min(held_.size(), stop.size() - 1); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) {
        keep = n;
        break;
      }
    }
  }
  text->append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace thimble
