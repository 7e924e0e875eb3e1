// Protobuf's string fields hold UTF-8 only, and gRPC's own error for anything else names no field.
// Called by: everything that sends text. Holds nothing.
#pragma once

#include <string_view>

#include "storage/base/status.h"

namespace thimble {

// INVALID_ARGUMENT, "PROMPT: not UTF-8: byte 0xff at offset 5", where `text` is not UTF-8.
Status CheckUtf8(std::string_view what, std::string_view text);

}  // namespace thimble
