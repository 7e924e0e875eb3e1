#include "daemon/http/json_text.h"

#include <array>
#include <charconv>
#include <cmath>

#include "daemon/rpc/utf8.h"

namespace thimble {
namespace {

std::string Quoted(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : ToValidUtf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20) {
      quoted.append("\\u00");
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted += '"';
}

}  // namespace

JsonText& JsonText::Raw(std::string_view json) {
  const bool first =
      text_.empty() || std::string_view("{[:").find(text_.back()) != std::string::npos;
  if (!first) text_ += ',';
  text_ += json;
  return *this;
}

JsonText& JsonText::Open(char bracket) { return Raw({&bracket, 1}); }

JsonText& JsonText::Close(char bracket) {
  text_ += bracket;
  return *this;
}

JsonText& JsonText::Key(std::string_view key) {
  Raw(Quoted(key));
  text_ += ':';
  return *this;
}

JsonText& JsonText::Add(std::string_view text) { return Raw(Quoted(text)); }

JsonText& JsonText::Add(double value) {
  if (!std::isfinite(value)) return Raw("null");
  std::array<char, 32> digits;  // a double's shortest form has 24 characters at most
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return Raw(error == std::errc() ? std::string_view(digits.data(), end) : "null");
}

JsonText& JsonText::Add(bool value) { return Raw(value ? "true" : "false"); }

}  // namespace thimble
