#include "daemon/run/kv_quant.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>

#include "daemon/run/kernels.h"

namespace thimble {
namespace {

constexpr size_t kBlock = 32;
constexpr size_t kBlockHalves = 17;  // a half and 32 bytes

}  // namespace

void QuantizeKv(const float* x, size_t n, uint16_t* out) {
  assert(n % kBlock == 0);
  for (; n > 0; n -= kBlock, x += kBlock, out += kBlockHalves) {
    float most = 0;
    for (size_t i = 0; i < kBlock; ++i) most = std::max(most, std::fabs(x[i]));
    const float scale = most / 127.0F;
    const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
    FloatToHalf(&scale, 1, out);
    std::array<int8_t, kBlock> q{};
    for (size_t i = 0; i < kBlock; ++i) {
      // A NaN is none of the numbers that may be converted.
      const float value = std::round(x[i] * inverse);
      q[i] = value >= -127.0F && value <= 127.0F ? static_cast<int8_t>(value) : int8_t{0};
    }
    std::memcpy(out + 1, q.data(), kBlock);
  }
}

}  // namespace thimble
