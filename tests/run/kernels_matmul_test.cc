// Products of every tensor type on every SIMD target, against double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "daemon/run/kernels.h"
#include "hwy/aligned_allocator.h"
#include "tests/run/kernels_reference.h"

namespace thimble {
namespace {

struct Rows {
  Rows(TensorType type, size_t n, size_t n_columns, std::mt19937& random)
      : form(FormFor(type)),
        columns(n_columns),
        stride(PreparedRowBytes(form, columns)),
        prepared(hwy::AllocateAligned<uint8_t>(n * stride)) {
    std::normal_distribution<float> normal;
    for (size_t r = 0; r < n; ++r) {
      for (size_t i = 0; i < columns; ++i) floats.push_back(normal(random));
      PrepareRow(form, &floats[r * columns], columns, &prepared[r * stride]);
    }
  }

  // Row r as the kernel is to see it: for quantized weights, scale * q.
  std::vector<double> Exact(size_t r) const {
    std::vector<double> values(columns);
    for (size_t i = 0; i < columns; ++i) {
      if (form == ActivationForm::kFloat) {
        values[i] = floats[r * columns + i];
      } else {
        const uint8_t* row = &prepared[r * stride];
        float scale;
        std::memcpy(&scale, row + columns + i / 32 * 4, sizeof(scale));
        values[i] = double{scale} * static_cast<int8_t>(row[i]);
      }
    }
    return values;
  }

  ActivationForm form;
  size_t columns;
  size_t stride;
  std::vector<float> floats;
  hwy::AlignedFreeUniquePtr<uint8_t[]> prepared;
};

std::vector<size_t> ColumnsToTry(TensorType type) {
  const size_t block = Traits(type).block_elements;
  if (block == 1) return {1, 7, 64, 65, 100, 256};
  if (block == 32) return {32, 64, 96, 256, 288, 576};
  return {256, 512, 768};
}

class MatMulTest : public testing::TestWithParam<TensorType> {};

TEST_P(MatMulTest, AgreesWithDoublePrecisionOnEveryTarget) {
  const TensorType type = GetParam();
  std::mt19937 random(static_cast<uint32_t>(type) + 1);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    size_t misalignment = 0;
    for (const size_t columns : ColumnsToTry(type)) {
      for (const size_t n_outputs : {1, 2, 3, 5, 17}) {
        const std::vector<uint8_t> rows = RandomRows(type, n_outputs, columns, random);
        misalignment = (misalignment + 7) % 32;
        // Exactly as long as the weights, so that the sanitizer sees any read beyond them.
        std::vector<uint8_t> moved(misalignment + rows.size());
        std::memcpy(&moved[misalignment], rows.data(), rows.size());
        for (const size_t n_rows : {1, 2, 3, 4, 5, 8, 33}) {
          const Rows x(type, n_rows, columns, random);
          std::vector<float> y(n_rows * (n_outputs + 1), NAN);
          MatMul(type, &moved[misalignment], n_outputs, columns, x.prepared.get(), x.stride, n_rows,
                 y.data(), n_outputs + 1);
          for (size_t r = 0; r < n_rows; ++r) {
            const std::vector<double> xr = x.Exact(r);
            for (size_t o = 0; o < n_outputs; ++o) {
              const auto w = ReferenceRow(type, &rows[o * RowBytes(type, columns)], columns);
              double sum = 0;
              double magnitude = 0;
              for (size_t i = 0; i < columns; ++i) {
                sum += w[i] * xr[i];
                magnitude += std::abs(w[i] * xr[i]);
              }
              ASSERT_NEAR(y[r * (n_outputs + 1) + o], sum, 1e-6 * magnitude + 1e-12)
                  << KernelTarget() << " columns " << columns << " outputs " << n_outputs
                  << " rows " << n_rows << " at [" << r << "][" << o << "]";
            }
            ASSERT_TRUE(std::isnan(y[r * (n_outputs + 1) + n_outputs])) << "wrote past the outputs";
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, IsTheSameBitForBitForAnyCutOfRowsAndOutputs) {
  const TensorType type = GetParam();
  std::mt19937 random(99);
  const size_t columns = Traits(type).block_elements == 1 ? 100 : 768;
  const size_t n_outputs = 53;
  const size_t n_rows = 70;
  const size_t row_bytes = RowBytes(type, columns);
  const std::vector<uint8_t> w = RandomRows(type, n_outputs, columns, random);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    const Rows x(type, n_rows, columns, random);
    std::vector<float> whole(n_rows * n_outputs);
    MatMul(type, w.data(), n_outputs, columns, x.prepared.get(), x.stride, n_rows, whole.data(),
           n_outputs);
    for (const size_t rows : {1, 2, 3, 4, 5, 7, 8, 13, 64}) {
      for (const size_t outputs : {1, 3, 16, 19, 53}) {
        if (rows == 1 && outputs == 1) continue;  // below
        std::vector<float> parts(n_rows * n_outputs);
        for (size_t r = 0; r < n_rows; r += rows) {
          for (size_t o = 0; o < n_outputs; o += outputs) {
            // Weights at another alignment, too.
            const size_t n = std::min(outputs, n_outputs - o);
            std::vector<uint8_t> tile(3 + n * row_bytes);
            std::memcpy(&tile[3], &w[o * row_bytes], n * row_bytes);
            MatMul(type, &tile[3], n, columns, &x.prepared[r * x.stride], x.stride,
                   std::min(rows, n_rows - r), &parts[r * n_outputs + o], n_outputs);
          }
        }
        ASSERT_EQ(0, std::memcmp(parts.data(), whole.data(), whole.size() * sizeof(float)))
            << KernelTarget() << " rows " << rows << " outputs " << outputs;
      }
    }
    float single = 0;
    MatMul(type, &w[52 * row_bytes], 1, columns, &x.prepared[69 * x.stride], x.stride, 1, &single,
           1);
    ASSERT_EQ(single, whole[69 * n_outputs + 52]);
  }
}

class QuantizedMatMulTest : public MatMulTest {};

TEST_P(QuantizedMatMulTest, SurvivesTheLargestQuantsWithoutOverflow) {
  const TensorType type = GetParam();
  const size_t columns = 256;
  std::mt19937 random(3);
  for (const int fill : {0x00, 0x7F, 0x80, 0xFF}) {
    std::vector<uint8_t> w = RandomRows(type, 1, columns, random);
    // All bits alike, but for the scales, which stay finite.
    const std::vector<uint8_t> original = w;
    for (uint8_t& byte : w) byte = static_cast<uint8_t>(fill);
    const size_t block = Traits(type).block_bytes;
    for (size_t at = 0; at < w.size(); at += block) {
      const size_t half = type == TensorType::kQ2_K   ? 80
                          : type == TensorType::kQ3_K ? 108
                          : type == TensorType::kQ6_K ? 208
                                                      : 0;
      const size_t n = type == TensorType::kQ2_K ? 4 : 2;
      std::memcpy(&w[at + half], &original[at + half], n);
      if (type == TensorType::kQ4_1 || type == TensorType::kQ5_1 || type == TensorType::kQ4_K ||
          type == TensorType::kQ5_K) {
        std::memcpy(&w[at + 2], &original[at + 2], 2);
      }
    }
    const std::vector<double> exact = ReferenceRow(type, w.data(), columns);
    for (const float sign : {-1.0F, 1.0F}) {
      const std::vector<float> x(columns, sign);
      std::vector<float> y(3);
      for (const int64_t target : KernelTargets()) {
        const ScopedTarget scope(target);
        const size_t stride = PreparedRowBytes(ActivationForm::kQ8, columns);
        const auto prepared = hwy::AllocateAligned<uint8_t>(3 * stride);
        for (size_t r = 0; r < 3; ++r) {
          PrepareRow(ActivationForm::kQ8, x.data(), columns, &prepared[r * stride]);
        }
        double sum = 0;
        double magnitude = 0;
        for (const double value : exact) {
          sum += sign * value;
          magnitude += std::abs(value);
        }
        for (const size_t n_rows : {1, 3}) {
          MatMul(type, w.data(), 1, columns, prepared.get(), stride, n_rows, y.data(), 1);
          ASSERT_NEAR(y[n_rows - 1], sum, 1e-6 * magnitude) << KernelTarget() << " fill " << fill;
        }
      }
    }
  }
}

TEST_P(MatMulTest, RowsDequantizeToTheirDefinition) {
  const TensorType type = GetParam();
  std::mt19937 random(7);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const size_t columns : ColumnsToTry(type)) {
      const std::vector<uint8_t> row = RandomRows(type, 1, columns, random);
      const std::vector<double> exact = ReferenceRow(type, row.data(), columns);
      std::vector<uint8_t> moved(1 + row.size());
      std::memcpy(&moved[1], row.data(), row.size());
      std::vector<float> out(columns);
      DequantizeRow(type, &moved[1], columns, out.data());
      double largest = 0;
      for (const double value : exact) largest = std::max(largest, std::abs(value));
      for (size_t i = 0; i < columns; ++i) {
        ASSERT_NEAR(out[i], exact[i], 2e-7 * largest) << KernelTarget() << " value " << i;
      }
    }
  }
}

std::vector<TensorType> QuantizedTypes() {
  std::vector<TensorType> types;
  for (const TensorType type : kAllTypes) {
    if (Traits(type).quantized) types.push_back(type);
  }
  return types;
}

INSTANTIATE_TEST_SUITE_P(AllTypes, MatMulTest, testing::ValuesIn(kAllTypes),
                         [](const auto& test) { return std::string(Traits(test.param).name); });
INSTANTIATE_TEST_SUITE_P(QuantizedTypes, QuantizedMatMulTest, testing::ValuesIn(QuantizedTypes()),
                         [](const auto& test) { return std::string(Traits(test.param).name); });

TEST(PrepareRow, RoundsEveryValueToTheNearestStepAndSumsTheSteps) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const size_t columns : {32, 64, 96, 160, 576}) {
      std::vector<float> x(columns);
      for (float& value : x)
        value = normal(random) * std::exp2(static_cast<float>(random() % 40) - 20);
      for (size_t i = 0; i < 32; ++i) x[i] = columns == 96 ? 0.0F : x[i];  // a block of zeros
      for (size_t i = 32; i < 64 && i < columns; ++i) x[i] *= columns == 160 ? 1e-38F : 1.0F;
      const size_t bytes = PreparedRowBytes(ActivationForm::kQ8, columns);
      ASSERT_EQ(bytes % 64, 0U);
      const auto row = hwy::AllocateAligned<uint8_t>(bytes);
      PrepareRow(ActivationForm::kQ8, x.data(), columns, row.get());
      for (size_t i = 0; i < columns; ++i) {
        float scale;
        std::memcpy(&scale, &row[columns + i / 32 * 4], sizeof(scale));
        const auto q = static_cast<int8_t>(row[i]);
        ASSERT_GE(q, -127);
        ASSERT_LE(std::abs(x[i] - double{scale} * q), 0.5001 * scale + 1e-30)
            << KernelTarget() << " value " << i;
      }
      for (size_t g = 0; g < columns / 16; ++g) {
        int sum = 0;
        for (size_t i = 0; i < 16; ++i) sum += static_cast<int8_t>(row[g * 16 + i]);
        int16_t stored;
        std::memcpy(&stored, &row[columns + columns / 32 * 4 + g * 2], sizeof(stored));
        ASSERT_EQ(stored, sum) << KernelTarget() << " group " << g;
      }
    }
  }
}

TEST(TensorType, NamesSizesAndRefusesUnknownNumbers) {
  EXPECT_EQ(Traits(TensorType::kQ4_K).name, "Q4_K");
  EXPECT_EQ(RowBytes(TensorType::kQ4_K, 512), 288U);
  EXPECT_EQ(RowBytes(TensorType::kQ8_0, 64), 68U);
  EXPECT_EQ(RowBytes(TensorType::kBF16, 3), 6U);
  for (const uint32_t unknown : {4U, 5U, 9U, 15U, 16U, 31U, 40U, 0xFFFFFFFFU}) {
    EXPECT_EQ(FindTensorType(unknown), nullptr) << unknown;
  }
  for (const TensorType type : kAllTypes) {
    EXPECT_EQ(FindTensorType(static_cast<uint32_t>(type)), &Traits(type));
  }
}

}  // namespace
}  // namespace thimble
