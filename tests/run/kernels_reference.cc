#include "tests/run/kernels_reference.h"

#include <cmath>
#include <cstring>
#include <set>

#include "daemon/run/kernels.h"
#include "hwy/targets.h"

namespace thimble {
namespace {

double HalfAt(const uint8_t* bytes) {
  return ReferenceHalf(static_cast<uint16_t>(bytes[0] | (bytes[1] << 8)));
}

int Bits(const uint8_t* bytes, size_t first_bit, size_t n_bits) {
  int value = 0;
  for (size_t i = 0; i < n_bits; ++i) {
    const size_t bit = first_bit + i;
    value |= ((bytes[bit / 8] >> (bit % 8)) & 1) << i;
  }
  return value;
}

// Byte and nibble of value i in a block of 32 packed as 16 bytes: low nibbles first.
int Nibble32(const uint8_t* qs, size_t i) { return Bits(qs, (i % 16) * 8 + (i / 16) * 4, 4); }

// The same for 256 values in 128 bytes: 64 values in 32 bytes, low nibbles first.
int Nibble64(const uint8_t* qs, size_t i) {
  return Bits(qs, (i / 64 * 32 + i % 32) * 8 + (i / 32 % 2) * 4, 4);
}

// Two bits a value: 128 values in 32 bytes, four bit pairs one after the other.
int TwoBits(const uint8_t* qs, size_t i) {
  return Bits(qs, (i / 128 * 32 + i % 32) * 8 + (i / 32 % 4) * 2, 2);
}

constexpr int kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Scale j and min j of Q4_K and Q5_K.
void SixBits(const uint8_t* s, size_t j, int* scale, int* min) {
  if (j < 4) {
    *scale = s[j] & 63;
    *min = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) + 16 * (s[j - 4] >> 6);
    *min = (s[j + 4] >> 4) + 16 * (s[j] >> 6);
  }
}

double Value(TensorType type, const uint8_t* b, size_t i) {
  int scale = 0;
  int min = 0;
  switch (type) {
    case TensorType::kF32: {
      float value;
      std::memcpy(&value, b, sizeof(value));
      return value;
    }
    case TensorType::kF16:
      return HalfAt(b);
    case TensorType::kBF16: {
      const uint32_t bits = static_cast<uint32_t>(b[0] | (b[1] << 8)) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
    case TensorType::kQ8_0:
      return HalfAt(b) * static_cast<int8_t>(b[2 + i]);
    case TensorType::kQ4_0:
      return HalfAt(b) * (Nibble32(b + 2, i) - 8);
    case TensorType::kQ4_1:
      return HalfAt(b) * Nibble32(b + 4, i) + HalfAt(b + 2);
    case TensorType::kQ5_0:
      return HalfAt(b) * (Nibble32(b + 6, i) + 16 * Bits(b + 2, i, 1) - 16);
    case TensorType::kQ5_1:
      return HalfAt(b) * (Nibble32(b + 8, i) + 16 * Bits(b + 4, i, 1)) + HalfAt(b + 2);
    case TensorType::kQ2_K:
      return HalfAt(b + 80) * (b[i / 16] & 15) * TwoBits(b + 16, i) -
             HalfAt(b + 82) * (b[i / 16] >> 4);
    case TensorType::kQ3_K: {
      const size_t g = i / 16;
      const uint8_t* s = b + 96;
      scale = Bits(s, g % 8 * 8 + g / 8 * 4, 4) + 16 * Bits(s + 8, g % 4 * 8 + g / 4 * 2, 2) - 32;
      const int high = Bits(b, i % 32 * 8 + i / 32, 1);
      return HalfAt(b + 108) * scale * (TwoBits(b + 32, i) - (high != 0 ? 0 : 4));
    }
    case TensorType::kQ4_K:
      SixBits(b + 4, i / 32, &scale, &min);
      return HalfAt(b) * scale * Nibble64(b + 16, i) - HalfAt(b + 2) * min;
    case TensorType::kQ5_K:
      SixBits(b + 4, i / 32, &scale, &min);
      return HalfAt(b) * scale * (Nibble64(b + 48, i) + 16 * Bits(b + 16, i % 32 * 8 + i / 32, 1)) -
             HalfAt(b + 2) * min;
    case TensorType::kQ6_K: {
      // 128 values in 64 low bytes: the low nibbles of all, then the high nibbles of all.
      const size_t in_half = i % 128;
      const int low = Bits(b, (i / 128 * 64 + in_half % 64) * 8 + in_half / 64 * 4, 4);
      const int high = TwoBits(b + 128, i);
      return HalfAt(b + 208) * static_cast<int8_t>(b[192 + i / 16]) * (low + 16 * high - 32);
    }
    case TensorType::kIQ4_NL:
      return HalfAt(b) * kIq4[Nibble32(b + 2, i)];
    case TensorType::kIQ4_XS: {
      const size_t g = i / 32;
      scale = Bits(b + 4, g * 4, 4) + 16 * Bits(b + 2, g * 2, 2) - 32;
      return HalfAt(b) * scale * kIq4[Nibble32(b + 8 + g * 16, i % 32)];
    }
  }
  return NAN;
}

// Where the half floats of a block are.
std::vector<size_t> HalfOffsets(TensorType type) {
  switch (type) {
    case TensorType::kF16:
    case TensorType::kQ8_0:
    case TensorType::kQ4_0:
    case TensorType::kQ5_0:
    case TensorType::kIQ4_NL:
    case TensorType::kIQ4_XS:
      return {0};
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return {0, 2};
    case TensorType::kQ2_K:
      return {80, 82};
    case TensorType::kQ3_K:
      return {108};
    case TensorType::kQ6_K:
      return {208};
    default:
      return {};
  }
}

}  // namespace

std::vector<int64_t> KernelTargets() {
  std::vector<int64_t> targets;
  std::set<std::string> seen;
  for (int bit = 0; bit < 63; ++bit) {
    const int64_t target = int64_t{1} << bit;
    if ((hwy::SupportedTargets() & target) == 0) continue;
    const ScopedTarget scope(target);
    // A target that was not compiled falls back to another.
    if (KernelTarget() == std::string(hwy::TargetName(target))) targets.push_back(target);
  }
  return targets;
}

ScopedTarget::ScopedTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().DeInit();
}

ScopedTarget::~ScopedTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

double ReferenceHalf(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  double value = std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 0) value = std::ldexp(mantissa, -24);
  if (exponent == 31) value = mantissa == 0 ? INFINITY : NAN;
  return (half & 0x8000) != 0 ? -value : value;
}

std::vector<uint8_t> RandomRows(TensorType type, size_t n_rows, size_t columns,
                                std::mt19937& random) {
  const TensorTypeTraits& traits = Traits(type);
  const size_t bytes = n_rows * RowBytes(type, columns);
  std::vector<uint8_t> rows(bytes);
  for (uint8_t& byte : rows) byte = static_cast<uint8_t>(random());
  for (size_t block = 0; block < bytes; block += traits.block_bytes) {
    for (const size_t at : HalfOffsets(type)) {
      // Either sign, exponents from subnormal to 2^-1, any mantissa.
      const uint32_t exponent = random() % 15;
      const auto half = static_cast<uint16_t>((random() & 0x83FFU) | (exponent << 10));
      std::memcpy(&rows[block + at], &half, sizeof(half));
    }
    if (type == TensorType::kF32) {
      const auto value = static_cast<float>(std::normal_distribution<double>()(random));
      std::memcpy(&rows[block], &value, sizeof(value));
    }
    if (type == TensorType::kBF16) {
      const auto value = static_cast<float>(std::normal_distribution<double>()(random));
      std::memcpy(&rows[block], reinterpret_cast<const uint8_t*>(&value) + 2, 2);
    }
  }
  return rows;
}

std::vector<double> ReferenceRow(TensorType type, const uint8_t* row, size_t columns) {
  const TensorTypeTraits& traits = Traits(type);
  std::vector<double> values(columns);
  for (size_t i = 0; i < columns; ++i) {
    const uint8_t* block = row + i / traits.block_elements * traits.block_bytes;
    values[i] = Value(type, block, i % traits.block_elements);
  }
  return values;
}

}  // namespace thimble
