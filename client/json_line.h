// One JSON object on one line, built field by field in the order in which they are added.
// Called by: everything with --json. Memory: the line.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

namespace thimble {

class JsonLine {
 public:
  // Without it C++ would turn a string literal into a bool.
  JsonLine& Add(std::string_view key, const char* value) {
    return Add(key, std::string_view(value));
  }
  JsonLine& Add(std::string_view key, std::string_view value);
  JsonLine& Add(std::string_view key, const std::string& value) {
    return Add(key, std::string_view(value));
  }
  JsonLine& Add(std::string_view key, double value);  // shortest exact form; null where not finite
  JsonLine& Add(std::string_view key, float value);
  template <std::integral T>
  JsonLine& Add(std::string_view key, T value) {
    return AddRaw(key, std::to_string(value));
  }
  // `json` is a JSON value already.
  JsonLine& AddRaw(std::string_view key, std::string_view json);

  // `text`, UTF-8, as a JSON string.
  static std::string Quote(std::string_view text);

  // "{...}", without the end of line.
  [[nodiscard]] std::string str() const { return "{" + fields_ + "}"; }

 private:
  std::string fields_;
};

}  // namespace thimble
