// Norms, rope, activation functions, half conversions: everything that is not a product with
// weights. Memory: registers and a few hundred bytes of stack.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#if defined(THIMBLE_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_VECTOR_INL_H_
#undef THIMBLE_KERNELS_VECTOR_INL_H_
#else
#define THIMBLE_KERNELS_VECTOR_INL_H_
#endif

#include "daemon/run/kernels_base-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

// Sums in double, in 16 strands for instruction-level parallelism (and, where the compiler finds
// them, vectors); the strands are added pairwise. The same order on every target.
template <class Term>
HWY_INLINE double SumInDouble(size_t n, Term term) {
  std::array<double, 16> strand{};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t j = 0; j < 16; ++j) strand[j] += term(i + j);
  }
  for (size_t j = 0; i < n; ++i, ++j) strand[j] += term(i);
  for (size_t width = 8; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) strand[j] += strand[j + width];
  }
  return strand[0];
}

HWY_NOINLINE inline void RmsNorm(const float* x, const float* weight, float epsilon, size_t n,
                                 float* out) {
  const double squares = SumInDouble(n, [x](size_t i) { return double{x[i]} * double{x[i]}; });
  const double mean = squares / static_cast<double>(n);
  const auto scale = static_cast<float>(1.0 / std::sqrt(mean + double{epsilon}));
  const VF vscale = hn::Set(DF(), scale);
  Map2(x, weight, n, out, [vscale](VF v, VF w) HWY_ATTR { return hn::Mul(hn::Mul(v, vscale), w); });
}

HWY_NOINLINE inline void LayerNorm(const float* x, const float* weight, const float* bias,
                                   float epsilon, size_t n, float* out) {
  const double mean =
      SumInDouble(n, [x](size_t i) { return double{x[i]}; }) / static_cast<double>(n);
  const double squares = SumInDouble(n, [x, mean](size_t i) {
    const double centred = double{x[i]} - mean;
    return centred * centred;
  });
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + double{epsilon});
  // x - mean cancels where the mean is large beside the deviation: subtract in double.
  for (size_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>((double{x[i]} - mean) * scale) * weight[i] + bias[i];
  }
}

HWY_NOINLINE inline void ApplyRope(float* head, const float* cosine, const float* sine,
                                   size_t n_pairs, bool interleaved) {
  if (interleaved) {
    for (size_t i = 0; i < n_pairs; ++i) {
      const float a = head[2 * i];
      const float b = head[2 * i + 1];
      head[2 * i] = a * cosine[i] - b * sine[i];
      head[2 * i + 1] = a * sine[i] + b * cosine[i];
    }
    return;
  }
  float* second = head + n_pairs;
  for (size_t i = 0; i < n_pairs; ++i) {
    const float a = head[i];
    const float b = second[i];
    head[i] = a * cosine[i] - b * sine[i];
    second[i] = a * sine[i] + b * cosine[i];
  }
}

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3): the logistic
// form keeps its relative precision for negative x, where 1 + tanh(u) cancels.
HWY_NOINLINE inline void Gelu(float* x, size_t n) {
  Map2(x, x, n, x, [](VF v, VF) HWY_ATTR {
    const DF df;
    const VF cubic = hn::Mul(hn::Mul(v, v), hn::Set(df, 0.044715F));
    const VF u = hn::MulAdd(cubic, v, v);
    const VF e = Exp(hn::Mul(u, hn::Set(df, -2.0F * 0.797884560802865F)));
    return hn::Div(v, hn::Add(hn::Set(df, 1.0F), e));
  });
}

HWY_NOINLINE inline void SwiGlu(const float* gate, float* up, size_t n) {
  Map2(gate, up, n, up, [](VF g, VF u) HWY_ATTR {
    const DF df;
    const VF e = Exp(hn::Neg(g));
    return hn::Mul(u, hn::Div(g, hn::Add(hn::Set(df, 1.0F), e)));
  });
}

HWY_NOINLINE inline void AddInPlace(float* y, const float* x, size_t n) {
  Map2(y, x, n, y, [](VF a, VF b) HWY_ATTR { return hn::Add(a, b); });
}

// A comparison with NaN is false: it never replaces what is there.
HWY_NOINLINE inline float Largest(const float* x, size_t n) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  VF largest = hn::Set(df, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF v = hn::LoadU(df, x + i);
    largest = hn::IfThenElse(hn::Gt(v, largest), v, largest);
  }
  float result = hn::GetLane(hn::MaxOfLanes(df, largest));
  for (; i < n; ++i) {
    if (x[i] > result) result = x[i];
  }
  return result;
}

HWY_NOINLINE inline float SumOfExp(const float* x, size_t n, float max) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  const VF vmax = hn::Set(df, max);
  const auto term = [vmax](VF v) HWY_ATTR {
    return hn::IfThenElseZero(hn::Eq(v, v), Exp(hn::Sub(v, vmax)));
  };
  VF sum = hn::Zero(df);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::Add(sum, term(hn::LoadU(df, x + i)));
  if (i < n) {
    HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)];
    std::fill_n(rest, lanes, std::numeric_limits<float>::quiet_NaN());
    std::memcpy(rest, x + i, (n - i) * sizeof(float));
    sum = hn::Add(sum, term(hn::Load(df, rest)));
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

HWY_NOINLINE inline void HalfToFloat(const uint16_t* x, size_t n, float* out) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(LoadHalf(x + i), df, out + i);
  if (i < n) {
    HWY_ALIGN uint16_t halves[HWY_MAX_BYTES / sizeof(float)] = {};
    HWY_ALIGN float floats[HWY_MAX_BYTES / sizeof(float)];
    std::memcpy(halves, x + i, (n - i) * sizeof(uint16_t));
    hn::Store(LoadHalf(halves), df, floats);
    std::memcpy(out + i, floats, (n - i) * sizeof(float));
  }
}

// One float to half, to nearest even. Adding the right power of two makes the float adder round a
// subnormal result; a normal one is rounded by an integer addition that carries into the exponent.
HWY_INLINE uint16_t RoundToHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = (bits >> 16) & 0x8000U;
  bits &= 0x7FFFFFFFU;
  if (bits > 0x7F800000U) return static_cast<uint16_t>(sign | 0x7E00U);   // NaN
  if (bits >= 0x477FF000U) return static_cast<uint16_t>(sign | 0x7C00U);  // rounds to 65536: inf
  if (bits < 0x38800000U) {                                               // below 2^-14: subnormal
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5F;  // the spacing of floats in [0.5, 1) is 2^-24, that of subnormal halves
    std::memcpy(&bits, &magnitude, sizeof(bits));
    return static_cast<uint16_t>(sign | (bits - 0x3F000000U));
  }
  const uint32_t odd = (bits >> 13) & 1U;
  bits += 0xFFFU + odd - ((127U - 15U) << 23);
  return static_cast<uint16_t>(sign | (bits >> 13));
}

// Lanes(DF()) floats to halves at any address, to nearest even.
HWY_INLINE void StoreHalf(VF value, uint16_t* out) {
#if THIMBLE_KERNELS_HALVES
  const hn::Rebind<hwy::float16_t, DF> d16;
  const hn::Rebind<uint16_t, DF> du16;
  hn::StoreU(hn::BitCast(du16, hn::DemoteTo(d16, value)), du16, out);
#else
  HWY_ALIGN float floats[hn::MaxLanes(DF())];
  hn::Store(value, DF(), floats);
  for (size_t i = 0; i < hn::Lanes(DF()); ++i) out[i] = RoundToHalf(floats[i]);
#endif
}

HWY_NOINLINE inline void FloatToHalf(const float* x, size_t n, uint16_t* out) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) StoreHalf(hn::LoadU(df, x + i), out + i);
  for (; i < n; ++i) out[i] = RoundToHalf(x[i]);
}

// Blocks of Q8_0, each read before it is written: out may begin up to 30 bytes a block before them.
HWY_NOINLINE inline void Q8ToHalf(const uint16_t* blocks, size_t n, uint16_t* out) {
  constexpr size_t kValues = 32;
  const DF df;
  const hn::Rebind<int8_t, DF> d8;
  const hn::Rebind<int32_t, DF> d32;
  constexpr size_t kLanes = hn::MaxLanes(df);
  for (; n > 0; n -= kValues, blocks += 1 + kValues / 2, out += kValues) {
    const VF scale = SetHalf(*blocks);
    const auto* q = reinterpret_cast<const int8_t*>(blocks + 1);
    VF values[kValues / kLanes];
    HWY_UNROLL(8)
    for (size_t i = 0; i < kValues / kLanes; ++i) {
      const auto wide = hn::PromoteTo(d32, LoadBytes(d8, q + i * kLanes));
      values[i] = hn::Mul(scale, hn::ConvertTo(df, wide));
    }
    HWY_UNROLL(8)
    for (size_t i = 0; i < kValues / kLanes; ++i) StoreHalf(values[i], out + i * kLanes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
