#include "client/utf8_check.h"

#include <cstdio>
#include <string>

#include "daemon/model/utf8.h"

namespace thimble {

Status CheckUtf8(std::string_view what, std::string_view text) {
  for (size_t offset = 0; offset < text.size();) {
    const size_t bytes = Utf8CharBytes(text.substr(offset));
    if (bytes == 0) {
      char where[64];
      (void)std::snprintf(static_cast<char*>(where), sizeof where, "byte 0x%02x at offset %zu",
                          static_cast<unsigned>(static_cast<unsigned char>(text[offset])), offset);
      return InvalidArgumentError(std::string(what) +
                                  ": not UTF-8: " + static_cast<const char*>(where));
    }
    offset += bytes;
  }
  return {};
}

}  // namespace thimble
