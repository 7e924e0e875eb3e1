#include "daemon/model/byte_alphabet.h"

#include <array>

#include "daemon/model/utf8.h"

namespace thimble {
namespace {

constexpr uint16_t kFirstMoved = 0x100;
constexpr uint16_t kEnd = 0x144;
constexpr int16_t kNoByte = -1;

constexpr bool StandsForItself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> code_point{};  // by byte
  std::array<int16_t, kEnd> byte{};        // by code point
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = kNoByte;
  uint16_t moved = kFirstMoved;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const uint16_t code_point = StandsForItself(byte) ? static_cast<uint16_t>(byte) : moved++;
    alphabet.code_point[byte] = code_point;
    alphabet.byte[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.code_point[' '] == 0x120 && kAlphabet.code_point[0xAD] == kEnd - 1);

}  // namespace

void AppendAlphabetChar(uint8_t byte, std::string* out) {
  const uint16_t code_point = kAlphabet.code_point[byte];
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
  } else {  // below U+0800: two bytes
    out->push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  }
}

std::string BytesOfAlphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8CharBytes(text);
    unsigned code_point = kEnd;
    if (length == 1) code_point = static_cast<uint8_t>(text[0]);
    if (length == 2) {
      code_point =
          (static_cast<uint8_t>(text[0]) & 0x1FU) << 6 | (static_cast<uint8_t>(text[1]) & 0x3FU);
    }
    const int16_t byte = code_point < kEnd ? kAlphabet.byte[code_point] : kNoByte;
    const size_t taken = length == 0 ? 1 : length;
    if (byte == kNoByte) {
      bytes += text.substr(0, taken);
    } else {
      bytes.push_back(static_cast<char>(byte));
    }
    text.remove_prefix(taken);
  }
  return bytes;
}

}  // namespace thimble
