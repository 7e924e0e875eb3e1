// Dispatch of the kernels to the best SIMD target of the processor, at run time.
#include "daemon/run/kernels.h"

#include <cassert>

// AVX3_DL brings AVX512-VNNI. The scalable targets (SVE, RVV) have no fixed-size arrays of vectors,
// which the register blocking needs: ARM64 runs NEON.
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL
#endif
#define THIMBLE_SCALABLE (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#if defined(__SANITIZE_ADDRESS__)
// Checked code of six targets takes ten minutes to compile; AVX2 runs the same 128-bit loops as
// these.
#define HWY_DISABLED_TARGETS (THIMBLE_SCALABLE | HWY_SSSE3 | HWY_SSE4 | HWY_AVX3)
#else
#define HWY_DISABLED_TARGETS THIMBLE_SCALABLE
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "daemon/run/kernels.cc"
// The order matters: foreach_target.h compiles all that follows once per target.
// clang-format off
#include "hwy/foreach_target.h"
#include "daemon/run/kernels_attention-inl.h"
#include "daemon/run/kernels_float-inl.h"
#include "daemon/run/kernels_quant-inl.h"
#include "daemon/run/kernels_vector-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

// Calls body with the type as a constant, which picks the unpacking.
template <class Body>
void WithQuantizedType(TensorType type, Body body) {
  switch (type) {
    case TensorType::kQ8_0:
      return body.template operator()<TensorType::kQ8_0>();
    case TensorType::kQ4_0:
      return body.template operator()<TensorType::kQ4_0>();
    case TensorType::kQ4_1:
      return body.template operator()<TensorType::kQ4_1>();
    case TensorType::kQ5_0:
      return body.template operator()<TensorType::kQ5_0>();
    case TensorType::kQ5_1:
      return body.template operator()<TensorType::kQ5_1>();
    case TensorType::kQ2_K:
      return body.template operator()<TensorType::kQ2_K>();
    case TensorType::kQ3_K:
      return body.template operator()<TensorType::kQ3_K>();
    case TensorType::kQ4_K:
      return body.template operator()<TensorType::kQ4_K>();
    case TensorType::kQ5_K:
      return body.template operator()<TensorType::kQ5_K>();
    case TensorType::kQ6_K:
      return body.template operator()<TensorType::kQ6_K>();
    case TensorType::kIQ4_NL:
      return body.template operator()<TensorType::kIQ4_NL>();
    case TensorType::kIQ4_XS:
      return body.template operator()<TensorType::kIQ4_XS>();
    default:
      assert(false && "not a quantized type");
  }
}

void MatMul(TensorType type, const void* w, size_t n_outputs, size_t columns, const void* x,
            size_t x_stride_bytes, size_t n_rows, float* y, size_t y_stride, const void* next) {
  const auto* wb = static_cast<const uint8_t*>(w);
  const auto* xb = static_cast<const uint8_t*>(x);
  switch (type) {
    case TensorType::kF32:
      return MatMulFloat<TensorType::kF32>(wb, n_outputs, columns, xb, x_stride_bytes, n_rows, y,
                                           y_stride, next);
    case TensorType::kF16:
      return MatMulFloat<TensorType::kF16>(wb, n_outputs, columns, xb, x_stride_bytes, n_rows, y,
                                           y_stride, next);
    case TensorType::kBF16:
      return MatMulFloat<TensorType::kBF16>(wb, n_outputs, columns, xb, x_stride_bytes, n_rows, y,
                                            y_stride, next);
    default:
      break;
  }
  WithQuantizedType(type, [=]<TensorType kType>() {
    MatMulQuantized<kType>(wb, n_outputs, columns, xb, x_stride_bytes, n_rows, y, y_stride, next);
  });
}

template <TensorType kType>
void DequantizeFloats(const uint8_t* row, size_t columns, float* out) {
  for (size_t i = 0; i < columns; ++i) {
    uint8_t one[HWY_MAX_BYTES] = {};
    std::memcpy(one, row + i * kFloatBytes<kType>, kFloatBytes<kType>);
    out[i] = hn::GetLane(LoadWeights<kType>(one));
  }
}

void DequantizeRow(TensorType type, const void* row, size_t columns, float* out) {
  const auto* bytes = static_cast<const uint8_t*>(row);
  switch (type) {
    case TensorType::kF32:
      std::memcpy(out, bytes, columns * sizeof(float));
      return;
    case TensorType::kF16:
      return DequantizeFloats<TensorType::kF16>(bytes, columns, out);
    case TensorType::kBF16:
      return DequantizeFloats<TensorType::kBF16>(bytes, columns, out);
    default:
      break;
  }
  WithQuantizedType(type, [=]<TensorType kType>() { DequantizeTiles<kType>(bytes, columns, out); });
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace thimble {

namespace {

// AVX3 is compiled with VNNI (kernels_base-inl.h): a processor with AVX-512 and without VNNI runs
// AVX2. Before the first dispatch, which remembers its choice.
[[maybe_unused]] const bool kWithoutVnniNoAvx3 = [] {
#if HWY_ARCH_X86
  const bool vnni = __builtin_cpu_supports("avx512vnni") != 0;
  if (!vnni) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
  return !vnni;
#else
  return false;
#endif
}();

}  // namespace

HWY_EXPORT(TargetName);
HWY_EXPORT(PrepareQ8);
HWY_EXPORT(MatMul);
HWY_EXPORT(DequantizeRow);
HWY_EXPORT(RmsNorm);
HWY_EXPORT(LayerNorm);
HWY_EXPORT(ApplyRope);
HWY_EXPORT(Gelu);
HWY_EXPORT(SwiGlu);
HWY_EXPORT(AddInPlace);
HWY_EXPORT(Largest);
HWY_EXPORT(SumOfExp);
HWY_EXPORT(FloatToHalf);
HWY_EXPORT(HalfToFloat);
HWY_EXPORT(Q8ToHalf);
HWY_EXPORT(AttendBlock);
HWY_EXPORT(FinishAttention);

const char* KernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

size_t PreparedRowBytes(ActivationForm form, size_t columns) {
  size_t bytes = columns * sizeof(float);
  if (form == ActivationForm::kQ8) {
    bytes = columns + columns / 32 * sizeof(float) + columns / 16 * sizeof(int16_t);
  }
  return (bytes + 63) / 64 * 64;
}

void PrepareRow(ActivationForm form, const float* x, size_t columns, void* out) {
  if (form == ActivationForm::kQ8) {
    assert(columns % 32 == 0);
    return HWY_DYNAMIC_DISPATCH(PrepareQ8)(x, columns, out);
  }
  // Padding of zeros, so that the kernels may use whole vectors.
  auto* bytes = static_cast<uint8_t*>(out);
  const size_t used = columns * sizeof(float);
  std::memcpy(bytes, x, used);
  std::memset(bytes + used, 0, PreparedRowBytes(form, columns) - used);
}

void MatMul(TensorType type, const void* w, size_t n_outputs, size_t columns, const void* x,
            size_t x_stride_bytes, size_t n_rows, float* y, size_t y_stride, const void* next) {
  HWY_DYNAMIC_DISPATCH(MatMul)
  (type, w, n_outputs, columns, x, x_stride_bytes, n_rows, y, y_stride, next);
}

void DequantizeRow(TensorType type, const void* row, size_t columns, float* out) {
  HWY_DYNAMIC_DISPATCH(DequantizeRow)(type, row, columns, out);
}

void RmsNorm(const float* x, const float* weight, float epsilon, size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(x, weight, epsilon, n, out);
}

void LayerNorm(const float* x, const float* weight, const float* bias, float epsilon, size_t n,
               float* out) {
  HWY_DYNAMIC_DISPATCH(LayerNorm)(x, weight, bias, epsilon, n, out);
}

void ApplyRope(float* head, const float* cosine, const float* sine, size_t n_pairs,
               bool interleaved) {
  HWY_DYNAMIC_DISPATCH(ApplyRope)(head, cosine, sine, n_pairs, interleaved);
}

void Gelu(float* x, size_t n) { HWY_DYNAMIC_DISPATCH(Gelu)(x, n); }

void SwiGlu(const float* gate, float* up, size_t n) { HWY_DYNAMIC_DISPATCH(SwiGlu)(gate, up, n); }

void AddInPlace(float* y, const float* x, size_t n) { HWY_DYNAMIC_DISPATCH(AddInPlace)(y, x, n); }

float Largest(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(Largest)(x, n); }

float SumOfExp(const float* x, size_t n, float max) {
  return HWY_DYNAMIC_DISPATCH(SumOfExp)(x, n, max);
}

void FloatToHalf(const float* x, size_t n, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(FloatToHalf)(x, n, out);
}

void HalfToFloat(const uint16_t* x, size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(HalfToFloat)(x, n, out);
}

void Q8ToHalf(const uint16_t* blocks, size_t n, uint16_t* out) {
  assert(n % 32 == 0);
  HWY_DYNAMIC_DISPATCH(Q8ToHalf)(blocks, n, out);
}

void AttendBlock(const AttentionQueries& queries, const uint16_t* keys, const uint16_t* values,
                 size_t n_tokens, size_t head_dim, float scale) {
  HWY_DYNAMIC_DISPATCH(AttendBlock)(queries, keys, values, n_tokens, head_dim, scale);
}

void FinishAttention(const AttentionState& state, const float* acc, size_t head_dim, float* out) {
  HWY_DYNAMIC_DISPATCH(FinishAttention)(state, acc, head_dim, out);
}

}  // namespace thimble
#endif  // HWY_ONCE
