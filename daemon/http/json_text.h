// JSON, written value by value into one string, commas put where they belong. Called by: the events
// of the status page. Memory: the text.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace thimble {

class JsonText {
 public:
  JsonText& Open(char bracket);  // '{' or '['
  JsonText& Close(char bracket);
  JsonText& Key(std::string_view key);

  JsonText& Add(std::string_view text);  // any bytes; what is not UTF-8 is replaced
  JsonText& Add(const char* text) { return Add(std::string_view(text)); }
  JsonText& Add(const std::string& text) { return Add(std::string_view(text)); }
  JsonText& Add(double value);  // shortest exact form; null where not finite
  JsonText& Add(bool value);
  template <std::unsigned_integral T>
  requires(!std::same_as<T, bool>) JsonText& Add(T value) { return Raw(std::to_string(value)); }

  template <typename T>
  JsonText& Field(std::string_view key, const T& value) {
    return Key(key).Add(value);
  }
  template <typename Range>
  JsonText& List(std::string_view key, const Range& values) {
    Key(key).Open('[');
    for (const auto& value : values) Add(value);
    return Close(']');
  }

  [[nodiscard]] std::string Take() && { return std::move(text_); }

 private:
  JsonText& Raw(std::string_view json);
  std::string text_;
};

}  // namespace thimble
