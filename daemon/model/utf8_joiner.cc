// Utf8Joiner: see tokenizer.h.
#include <algorithm>

#include "daemon/model/tokenizer.h"
#include "daemon/model/utf8.h"

namespace thimble {

std::string Utf8Joiner::Push(std::string_view bytes) {
  std::string piece = std::move(pending_);
  piece += bytes;
  pending_.clear();
  // A character's first byte is never another one's later byte, so that at most one suffix of 1 to
  // 3 bytes can be the beginning of a character.
  for (size_t length = 1; length <= std::min<size_t>(3, piece.size()); ++length) {
    const std::string_view suffix = std::string_view(piece).substr(piece.size() - length);
    if (!IsUtf8CharBeginning(suffix)) continue;
    pending_ = suffix;
    piece.resize(piece.size() - length);
    break;
  }
  return piece;
}

std::string Utf8Joiner::Flush() {
  std::string rest = std::move(pending_);
  pending_.clear();
  return rest;
}

}  // namespace thimble
