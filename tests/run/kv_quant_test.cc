#include "daemon/run/kv_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "daemon/run/kernels.h"

namespace thimble {
namespace {

std::vector<float> Values(size_t n) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) {
    values[i] = std::sin(static_cast<float>(i) * 0.7F) * (1 + static_cast<float>(i % 40));
  }
  return values;
}

TEST(KvQuant, EachValueIsWithinHalfAStepOfItsBlock) {
  const std::vector<float> values = Values(256);
  std::vector<uint16_t> quantized(256 / 32 * 17);
  QuantizeKv(values.data(), 256, quantized.data());
  std::vector<uint16_t> halves(256);
  Q8ToHalf(quantized.data(), 256, halves.data());
  std::vector<float> back(256);
  HalfToFloat(halves.data(), 256, back.data());
  for (size_t block = 0; block < 8; ++block) {
    float most = 0;
    for (size_t i = 0; i < 32; ++i) most = std::max(most, std::fabs(values[block * 32 + i]));
    for (size_t i = block * 32; i < block * 32 + 32; ++i) {
      // Half a step, and what the halves of scale and value lose.
      EXPECT_NEAR(back[i], values[i], most / 127 * 0.5F + most / 1000) << i;
    }
  }
}

TEST(KvQuant, ABlockIsAHalfAnd32Bytes) {
  std::vector<float> values(32, 0.0F);
  values[3] = 127;
  values[31] = -64;
  std::vector<uint16_t> quantized(17);
  QuantizeKv(values.data(), 32, quantized.data());
  EXPECT_EQ(quantized[0], 0x3C00) << "the half 1";
  std::vector<int8_t> bytes(32);
  std::memcpy(bytes.data(), &quantized[1], 32);
  EXPECT_EQ(bytes[3], 127);
  EXPECT_EQ(bytes[31], -64);
  EXPECT_EQ(bytes[0], 0);
  const std::vector<float> zeros(32, 0.0F);
  QuantizeKv(zeros.data(), 32, quantized.data());
  EXPECT_EQ(quantized, std::vector<uint16_t>(17, 0));
}

}  // namespace
}  // namespace thimble
