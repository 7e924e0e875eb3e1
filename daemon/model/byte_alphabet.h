// GPT-2's alphabet: 256 printable characters that stand for the 256 bytes, so that a vocabulary
// file has no control characters and no spaces (Radford et al. 2019, encoder.py's
// bytes_to_unicode). The printable bytes of Latin-1 stand for themselves; the 68 others, in rising
// order, are U+0100 to U+0143. Called by: the byte-level BPE tokenizer. Memory: two constant
// tables, 1.2 KiB.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace thimble {

// Appends the character that stands for `byte`, in UTF-8.
void AppendAlphabetChar(uint8_t byte, std::string* out);

// The bytes that `text` stands for. Characters outside the alphabet (in tokens that were added to a
// vocabulary as plain text) and invalid UTF-8 are passed on unchanged.
std::string BytesOfAlphabet(std::string_view text);

}  // namespace thimble
