// The tests' own reading of the tensor types, in double precision: written from the definitions of
// the formats, one value at a time, sharing nothing with the kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "daemon/model/tensor_type.h"

namespace thimble {

// Every SIMD target this processor and this build have, as masks for
// hwy::SetSupportedTargetsForTest.
std::vector<int64_t> KernelTargets();

// Selects a target for as long as it lives.
class ScopedTarget {
 public:
  explicit ScopedTarget(int64_t target);
  ~ScopedTarget();
  ScopedTarget(const ScopedTarget&) = delete;
  ScopedTarget& operator=(const ScopedTarget&) = delete;
};

inline constexpr TensorType kAllTypes[] = {
    TensorType::kF32,  TensorType::kF16,    TensorType::kBF16,  TensorType::kQ8_0,
    TensorType::kQ4_0, TensorType::kQ4_1,   TensorType::kQ5_0,  TensorType::kQ5_1,
    TensorType::kQ2_K, TensorType::kQ3_K,   TensorType::kQ4_K,  TensorType::kQ5_K,
    TensorType::kQ6_K, TensorType::kIQ4_NL, TensorType::kIQ4_XS};

double ReferenceHalf(uint16_t half);

// Rows of valid random blocks: any bits for the quants, scales that are moderate halves.
std::vector<uint8_t> RandomRows(TensorType type, size_t n_rows, size_t columns,
                                std::mt19937& random);

// [columns]
std::vector<double> ReferenceRow(TensorType type, const uint8_t* row, size_t columns);

}  // namespace thimble
