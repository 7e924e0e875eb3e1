// Finds stop strings in a stream of bytes, wherever the tokens' boundaries lie: what may be the
// beginning of one is held back until it is known. The stop whose last byte comes first ends the
// text; of those that end there, the longest: so the text does not depend on how it was cut into
// tokens. Called by: TextStream, the scheduler. Memory: the longest stop string, at most 256 bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace thimble {

class StopMatcher {
 public:
  // `stops`, none of them empty, must outlive the matcher.
  explicit StopMatcher(const std::vector<std::string>& stops) : stops_(&stops) {}

  // Appends to `text` what can no longer be part of a stop string. Once stopped() nothing comes.
  void Push(std::string_view bytes, std::string* text);
  // What was held back, at the end of a text that no stop string has ended.
  std::string Flush();

  [[nodiscard]] bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string>* stops_;
  std::string held_;  // a proper beginning of a stop string
  bool stopped_ = false;
};

}  // namespace thimble
