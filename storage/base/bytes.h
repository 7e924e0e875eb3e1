// Sizes in bytes: parsing "64M", printing "1.5 MiB", arithmetic that cannot wrap around.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "storage/base/status.h"

namespace thimble {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// "4096", "512K", "64M", "1G", each optionally with "B" or "iB" after the letter; the letters are
// powers of 1024 and case does not matter. Errors: INVALID_ARGUMENT, quoting `text`.
Result<uint64_t> ParseSize(std::string_view text);

// "17 bytes", "4.0 KiB", "1.5 MiB", "2.3 GiB".
std::string FormatBytes(uint64_t bytes);

// `a * b` and `a + b`, or false (and *out untouched) where 64 bits do not hold the result.
[[nodiscard]] inline bool CheckedMul(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}
[[nodiscard]] inline bool CheckedAdd(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}

// `value` rounded to a multiple of `alignment`, a power of two.
constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}
constexpr uint64_t AlignDown(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}

}  // namespace thimble
