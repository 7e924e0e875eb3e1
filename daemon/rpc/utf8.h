// Protobuf's string fields hold UTF-8 only; a model's bytes need not be, and a client's may not be.
// Called by: convert.cc, message.cc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace thimble {

// `bytes` with every maximal invalid part (Unicode 15, section 3.9, table 3-8) as one U+FFFD.
// Surrogates, overlong forms and what is beyond U+10FFFF are invalid.
std::string ToValidUtf8(std::string_view bytes);

// How many of `bytes` come before the first invalid one: all of them where they are UTF-8.
size_t ValidUtf8Bytes(std::string_view bytes);

}  // namespace thimble
