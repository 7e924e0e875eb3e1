// The tensor types thimble reads, as GGUF numbers them, and the shape of their blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thimble {

// ggml's type numbers (ggml.h, enum ggml_type): never change these values.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
};

// A row of a tensor is cut into blocks of `block_elements` values, each `block_bytes` long.
struct TensorTypeTraits {
  std::string_view name;    // "Q4_K"
  uint32_t block_elements;  // 1 for the float types
  uint32_t block_bytes;
  bool quantized;
};

// The traits of ggml's type number, or nullptr for one that thimble does not read.
const TensorTypeTraits* FindTensorType(uint32_t ggml_type);

// The same for a type that is known to be valid.
const TensorTypeTraits& Traits(TensorType type);

// Bytes of one row of `columns` values; `columns` is a multiple of block_elements.
inline size_t RowBytes(TensorType type, size_t columns) {
  const TensorTypeTraits& traits = Traits(type);
  return columns / traits.block_elements * traits.block_bytes;
}

}  // namespace thimble
