#include "daemon/rpc/utf8.h"

#include <cstddef>

namespace thimble {
namespace {

struct Span {
  size_t bytes;  // at least 1
  bool valid;
};

// The character at the beginning of `s`, or the invalid part there (Unicode 15, table 3-7).
Span Next(std::string_view s) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xc2 || lead > 0xf4) return {1, false};
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  unsigned char low = 0x80;
  unsigned char high = 0xbf;
  if (lead == 0xe0) low = 0xa0;   // overlong
  if (lead == 0xed) high = 0x9f;  // surrogates
  if (lead == 0xf0) low = 0x90;   // overlong
  if (lead == 0xf4) high = 0x8f;  // beyond U+10FFFF
  for (size_t i = 1; i < length; ++i) {
    if (i >= s.size() || at(i) < low || at(i) > high) return {i, false};
    low = 0x80;
    high = 0xbf;
  }
  return {length, true};
}

}  // namespace

std::string ToValidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Span span = Next(bytes);
    out += span.valid ? bytes.substr(0, span.bytes) : std::string_view("\xef\xbf\xbd");
    bytes.remove_prefix(span.bytes);
  }
  return out;
}

size_t ValidUtf8Bytes(std::string_view bytes) {
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const Span span = Next(rest);
    if (!span.valid) break;
    rest.remove_prefix(span.bytes);
  }
  return bytes.size() - rest.size();
}

}  // namespace thimble
