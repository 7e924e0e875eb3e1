// Protobuf's string fields hold UTF-8 only; a model's bytes need not be. Called by: convert.cc.
#pragma once

#include <string>
#include <string_view>

namespace thimble {

// `bytes` with every maximal invalid part (Unicode 15, section 3.9, table 3-8) as one U+FFFD.
// Surrogates, overlong forms and what is beyond U+10FFFF are invalid.
std::string ToValidUtf8(std::string_view bytes);

}  // namespace thimble
