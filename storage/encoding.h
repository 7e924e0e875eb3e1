// Numbers in keys and values on disk. Keys are big-endian, so that LMDB's byte order is the order
// of the numbers; values are little-endian. Called by: everything in storage/ that has a byte
// format.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "storage/lmdb.h"

namespace thimble {

// Halves and tokens are copied as they are.
static_assert(std::endian::native == std::endian::little, "thimble runs on little-endian machines");

// A key put together in place: Key().U64(number).U32(index).bytes(). At most 32 bytes.
class Key {
 public:
  Key& U16(uint16_t v) { return Append(v, 2); }
  Key& U32(uint32_t v) { return Append(v, 4); }
  Key& U64(uint64_t v) { return Append(v, 8); }
  template <size_t N>
  Key& Raw(const std::array<uint8_t, N>& v) {
    std::memcpy(&data_[size_], v.data(), N);
    size_ += N;
    return *this;
  }
  // Valid while the Key lives.
  [[nodiscard]] Bytes bytes() const { return Bytes(data_).first(size_); }

 private:
  Key& Append(uint64_t v, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      data_.at(size_++) = static_cast<std::byte>(v >> (8 * (n - 1 - i)));
    }
    return *this;
  }
  std::array<std::byte, 32> data_{};
  size_t size_ = 0;
};

// The big-endian number of `n` bytes at `offset` of a key that is long enough.
inline uint64_t KeyNumber(Bytes key, size_t offset, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; ++i) v = v << 8 | static_cast<uint8_t>(key[offset + i]);
  return v;
}

template <typename T>
void AppendLe(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof v);
}

// Takes values apart from the front. Reading past the end gives zeros and makes ok() false.
class ValueReader {
 public:
  explicit ValueReader(Bytes bytes) : rest_(bytes) {}
  template <typename T>
  T Le() {
    T v{};
    const Bytes raw = Take(sizeof v);
    if (raw.size() == sizeof v) std::memcpy(&v, raw.data(), sizeof v);
    return v;
  }
  Bytes Take(size_t n) {
    if (n > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const Bytes out = rest_.first(n);
    rest_ = rest_.subspan(n);
    return out;
  }
  [[nodiscard]] Bytes rest() const { return rest_; }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  Bytes rest_;
  bool ok_ = true;
};

}  // namespace thimble
