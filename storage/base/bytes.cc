#include "storage/base/bytes.h"

#include <array>
#include <charconv>
#include <cstdio>

namespace thimble {

Result<uint64_t> ParseSize(std::string_view text) {
  const auto error = [&] {
    return InvalidArgumentError("size \"" + std::string(text) +
                                "\": expected a number of bytes such as 4096, 512K, 64M or 1G");
  };
  uint64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc{}) return error();
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  uint64_t scale = 1;
  if (!unit.empty()) {
    switch (unit.front()) {
      case 'k':
      case 'K':
        scale = kKiB;
        break;
      case 'm':
      case 'M':
        scale = kMiB;
        break;
      case 'g':
      case 'G':
        scale = kGiB;
        break;
      default:
        return error();
    }
    unit.remove_prefix(1);
    if (!unit.empty() && unit != "B" && unit != "b" && unit != "iB" && unit != "ib") return error();
  }
  uint64_t bytes = 0;
  if (!CheckedMul(number, scale, &bytes)) return error();
  return bytes;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < kKiB) return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
  constexpr std::array<const char*, 3> kUnits = {"KiB", "MiB", "GiB"};
  double value = static_cast<double>(bytes) / static_cast<double>(kKiB);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %s", value, kUnits[unit]);
  return text.data();
}

}  // namespace thimble
