#include "daemon/model/gguf_cursor.h"

#include <cstdio>

namespace thimble {

Status GgufCursor::Need(uint64_t bytes) const {
  if (bytes <= remaining()) return {};
  return InvalidArgumentError(std::to_string(bytes) + " bytes needed at offset " +
                              std::to_string(position()) + ", which has " +
                              std::to_string(remaining()) + " bytes behind it");
}

Status GgufCursor::Refill() {
  buffer_begin_ += next_;
  next_ = 0;
  filled_ = 0;
  const auto bytes = static_cast<size_t>(std::min<uint64_t>(kBufferBytes, end_ - buffer_begin_));
  if (buffer_.size() < bytes) buffer_.resize(bytes);
  THIMBLE_RETURN_IF_ERROR(file_.ReadAt(buffer_begin_, {buffer_.data(), bytes}));
  filled_ = bytes;
  return {};
}

Status GgufCursor::Read(void* out, size_t bytes) {
  THIMBLE_RETURN_IF_ERROR(Need(bytes));
  auto* to = static_cast<std::byte*>(out);
  while (bytes > 0) {
    if (next_ >= filled_) THIMBLE_RETURN_IF_ERROR(Refill());
    const size_t part = std::min(bytes, filled_ - next_);
    std::memcpy(to, buffer_.data() + next_, part);
    next_ += part;
    to += part;
    bytes -= part;
  }
  return {};
}

Status GgufCursor::Skip(uint64_t bytes) {
  THIMBLE_RETURN_IF_ERROR(Need(bytes));
  if (bytes <= filled_ - next_) {
    next_ += static_cast<size_t>(bytes);
  } else {  // The bytes between are never read.
    buffer_begin_ += next_ + bytes;
    next_ = 0;
    filled_ = 0;
  }
  return {};
}

Status GgufCursor::ReadString(uint64_t max_bytes, std::string* out) {
  uint64_t length = 0;
  THIMBLE_RETURN_IF_ERROR(Read(&length));
  if (length > remaining()) return InContext("string length", "", Need(length));
  if (length > max_bytes) {
    return InvalidArgumentError("string of " + std::to_string(length) + " bytes at offset " +
                                std::to_string(position()) + ": at most " +
                                std::to_string(max_bytes));
  }
  out->resize(static_cast<size_t>(length));
  return Read(out->data(), out->size());
}

Status GgufCursor::SkipString() {
  uint64_t length = 0;
  THIMBLE_RETURN_IF_ERROR(Read(&length));
  if (length > remaining()) return InContext("string length", "", Need(length));
  return Skip(length);
}

Status InContext(std::string_view what, std::string_view name, Status status) {
  if (status.ok()) return status;
  std::string message(what);
  if (!name.empty()) message += " " + Printable(name);
  return {status.code(), message + ": " + status.message()};
}

std::string Printable(std::string_view name) {
  constexpr size_t kMaxCharacters = 100;
  std::string text;
  for (const char character : name) {
    if (text.size() >= kMaxCharacters) return text + "...";
    if (character >= 0x20 && character < 0x7f) {
      text += character;
    } else {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\x%02x",
                    static_cast<unsigned>(static_cast<unsigned char>(character)));
      text += escaped.data();
    }
  }
  return text;
}

}  // namespace thimble
