// Where UTF-8 characters begin and end (RFC 3629: no overlong forms, no surrogates, at most
// U+10FFFF). Called by: the tokenizers, Utf8Joiner. Holds nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thimble {

namespace utf8_internal {

// Bytes of the character that `lead` begins, 0 where it begins none.
constexpr size_t LengthByLead(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

// Whether `byte` may stand at `position` (1 to 3) behind `lead`. The second byte's range is what
// keeps overlong forms, surrogates and numbers above U+10FFFF out.
constexpr bool MayFollow(uint8_t lead, size_t position, uint8_t byte) {
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (position == 1) {
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  }
  return byte >= low && byte <= high;
}

}  // namespace utf8_internal

// Bytes of the valid character at the beginning of `text`, 0 where there is none.
constexpr size_t Utf8CharBytes(std::string_view text) {
  if (text.empty()) return 0;
  const auto lead = static_cast<uint8_t>(text[0]);
  const size_t bytes = utf8_internal::LengthByLead(lead);
  if (bytes > text.size()) return 0;
  for (size_t i = 1; i < bytes; ++i) {
    if (!utf8_internal::MayFollow(lead, i, static_cast<uint8_t>(text[i]))) return 0;
  }
  return bytes;
}

// True where `text` (not empty) is the beginning of a character but not yet all of it.
constexpr bool IsUtf8CharBeginning(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  if (text.size() >= utf8_internal::LengthByLead(lead)) return false;
  for (size_t i = 1; i < text.size(); ++i) {
    if (!utf8_internal::MayFollow(lead, i, static_cast<uint8_t>(text[i]))) return false;
  }
  return true;
}

}  // namespace thimble
