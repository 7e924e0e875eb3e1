// The scalar target's quantized products equal plain C sums bit for bit: on ARMv6 those of
// kernels_armv6-inl.h (SMLAD, blocks read without a tile), elsewhere the portable ones. The
// unpacking itself is tested in kernels_matmul_test.cc.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "daemon/run/kernels.h"
#include "hwy/aligned_allocator.h"
#include "tests/run/kernels_reference.h"
// Compiled here for the one target that the compiler's flags allow: the scalar one on x86-64 and on
// ARMv6.
#include "daemon/run/kernels_quant-inl.h"

#if HWY_TARGET == HWY_SCALAR
#if defined(__ARM_ARCH) && __ARM_ARCH == 6
static_assert(THIMBLE_KERNELS_SMLAD, "SMLAD is used where there is nothing better");
#endif

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {
namespace {

// One output of one row, a product at a time: integers within a group, then the float operations
// that kernels_quant-inl.h names.
template <TensorType kType>
float PlainDot(const uint8_t* row, size_t columns, const uint8_t* prepared) {
  using Shape = Block<kType>;
  Tile tile;
  std::memset(&tile, 0, sizeof(tile));
  volatile float acc = 0;  // no operation is contracted with, or moved past, another
  for (size_t column = 0; column < columns; column += kTileColumns) {
    const size_t n_blocks = std::min(kTileColumns, columns - column) / kBlock;
    UnpackTile<Shape>(row + column / Shape::kElements * Shape::kBytes, 0, 1, n_blocks, tile);
    ExpandScales<Shape>(n_blocks, tile);
    const RowView x = ViewRow(prepared, columns, column);
    for (size_t g = 0; g < n_blocks * kBlock / Shape::kGroup; ++g) {
      int isum = 0;
      int x_sum = 0;
      for (size_t i = g * Shape::kGroup; i < (g + 1) * Shape::kGroup; ++i) {
        const int q = Shape::kSigned ? static_cast<int8_t>(tile.q[0][i]) : tile.q[0][i];
        isum += (q - Shape::kOffset) * x.q[i];
        x_sum += x.q[i];
      }
      const float x_scale = x.scale[g * Shape::kGroup / kBlock];
      volatile float product = tile.scale[g][0] * x_scale;
      product = static_cast<float>(isum) * product;
      acc = acc + product;
      if constexpr (Shape::kHasMin) {
        product = x_scale * static_cast<float>(x_sum);
        product = tile.min[g][0] * product;
        acc = acc + product;
      }
    }
  }
  return acc;
}

using Dot = float (*)(const uint8_t*, size_t, const uint8_t*);
Dot PlainDotOf(TensorType type) {
  switch (type) {
    case TensorType::kQ8_0:
      return PlainDot<TensorType::kQ8_0>;
    case TensorType::kQ4_0:
      return PlainDot<TensorType::kQ4_0>;
    case TensorType::kQ4_1:
      return PlainDot<TensorType::kQ4_1>;
    case TensorType::kQ5_0:
      return PlainDot<TensorType::kQ5_0>;
    case TensorType::kQ5_1:
      return PlainDot<TensorType::kQ5_1>;
    case TensorType::kQ2_K:
      return PlainDot<TensorType::kQ2_K>;
    case TensorType::kQ3_K:
      return PlainDot<TensorType::kQ3_K>;
    case TensorType::kQ4_K:
      return PlainDot<TensorType::kQ4_K>;
    case TensorType::kQ5_K:
      return PlainDot<TensorType::kQ5_K>;
    case TensorType::kQ6_K:
      return PlainDot<TensorType::kQ6_K>;
    case TensorType::kIQ4_NL:
      return PlainDot<TensorType::kIQ4_NL>;
    case TensorType::kIQ4_XS:
      return PlainDot<TensorType::kIQ4_XS>;
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE

namespace {

class ScalarMatMulTest : public testing::TestWithParam<TensorType> {};

// quants: what fills the blocks' bytes apart from the half floats, or -1 for random ones.
void ExpectPlainSums(TensorType type, size_t columns, size_t n_outputs, size_t n_rows, int quants) {
  std::mt19937 random(static_cast<uint32_t>(columns + 100 * n_outputs + 10000 * n_rows));
  const size_t row_bytes = RowBytes(type, columns);
  // Odd addresses, and not a byte behind the weights.
  std::vector<uint8_t> w(1 + n_outputs * row_bytes);
  const std::vector<uint8_t> rows = RandomRows(type, n_outputs, columns, random);
  std::memcpy(&w[1], rows.data(), rows.size());
  if (quants >= 0) {
    const size_t block = Traits(type).block_bytes;
    // Q8_0 and Q4_0: the half comes first.
    for (size_t at = 0; at < rows.size(); at += block)
      std::memset(&w[1 + at + 2], quants, block - 2);
  }
  const size_t stride = PreparedRowBytes(ActivationForm::kQ8, columns);
  const auto prepared = hwy::AllocateAligned<uint8_t>(n_rows * stride);
  std::normal_distribution<float> normal;
  std::vector<float> x(columns);
  for (size_t r = 0; r < n_rows; ++r) {
    for (float& value : x) value = quants < 0 ? normal(random) : (r % 2 == 0 ? 1.0F : -1.0F);
    PrepareRow(ActivationForm::kQ8, x.data(), columns, &prepared[r * stride]);
  }
  std::vector<float> y(n_rows * n_outputs);
  {
    const ScopedTarget scope(HWY_SCALAR);
    ASSERT_STREQ(KernelTarget(), hwy::TargetName(HWY_SCALAR));
    MatMul(type, &w[1], n_outputs, columns, prepared.get(), stride, n_rows, y.data(), n_outputs);
  }
  const auto plain = HWY_NAMESPACE::PlainDotOf(type);
  for (size_t r = 0; r < n_rows; ++r) {
    for (size_t o = 0; o < n_outputs; ++o) {
      const float expected = plain(&w[1 + o * row_bytes], columns, &prepared[r * stride]);
      ASSERT_EQ(0, std::memcmp(&expected, &y[r * n_outputs + o], sizeof(float)))
          << expected << " is not " << y[r * n_outputs + o] << ": columns " << columns
          << " outputs " << n_outputs << " rows " << n_rows << " at [" << r << "][" << o << "]";
    }
  }
}

TEST_P(ScalarMatMulTest, EqualsPlainSumsBitForBit) {
  const TensorType type = GetParam();
  const bool large = Traits(type).block_elements == 256;
  const std::vector<size_t> all_columns =
      large ? std::vector<size_t>{256, 768} : std::vector<size_t>{32, 64, 224, 256, 288, 800};
  for (const size_t columns : all_columns) {
    for (const size_t n_outputs : {1, 2, 3, 15, 16, 17, 35}) {
      for (const size_t n_rows : {1, 2, 3, 6, 65}) {
        ExpectPlainSums(type, columns, n_outputs, n_rows, -1);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(ScalarMatMul, TheLargestQuantsEqualPlainSumsBitForBit) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0}) {
    for (const int quants : {0x00, 0x0F, 0x7F, 0x80, 0xF0, 0xFF}) {
      ExpectPlainSums(type, 288, 3, 3, quants);
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

INSTANTIATE_TEST_SUITE_P(QuantizedTypes, ScalarMatMulTest, testing::ValuesIn(QuantizedTypes()),
                         [](const auto& test) { return std::string(Traits(test.param).name); });

}  // namespace
}  // namespace thimble
HWY_AFTER_NAMESPACE();
#endif
