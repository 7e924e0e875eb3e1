// Products of float weights (F32, F16, BF16) with float activations. Each y[r][o] has one vector of
// sums over the columns, whatever the number of rows and outputs beside it, reduced at the end.
// Memory: 16 vectors, and 128 bytes of stack for columns that do not fill a vector.
#if defined(THIMBLE_KERNELS_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_FLOAT_INL_H_
#undef THIMBLE_KERNELS_FLOAT_INL_H_
#else
#define THIMBLE_KERNELS_FLOAT_INL_H_
#endif

#include "daemon/model/tensor_type.h"
#include "daemon/run/kernels_base-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

template <TensorType kType>
inline constexpr size_t kFloatBytes = kType == TensorType::kF32 ? 4 : 2;

template <TensorType kType>
HWY_INLINE VF LoadWeights(const uint8_t* from) {
  if constexpr (kType == TensorType::kF32) {
    return LoadBytes(DF(), from);
  } else if constexpr (kType == TensorType::kF16) {
    return LoadHalf(from);
  } else {
    return LoadBFloat(from);
  }
}

// kRows rows by kOutputs outputs. A prepared row is padded with zeros to whole vectors. ahead: the
// bytes that are wanted next, as many; kFetch: they are fetched.
template <TensorType kType, size_t kRows, size_t kOutputs, bool kFetch>
HWY_INLINE void DotFloats(const uint8_t* w, size_t columns, uintptr_t ahead, const uint8_t* x,
                          size_t x_stride_bytes, float* y, size_t y_stride) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  const size_t row_bytes = columns * kFloatBytes<kType>;
  VF sums[kRows][kOutputs];
  const float* rows[kRows];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    rows[r] = reinterpret_cast<const float*>(x + r * x_stride_bytes);
    HWY_UNROLL(4)
    for (size_t o = 0; o < kOutputs; ++o) sums[r][o] = hn::Zero(df);
  }
  size_t i = 0;
  for (; i + lanes <= columns; i += lanes) {
    if constexpr (kFetch) {
      constexpr size_t kColumnBytes = kOutputs * kFloatBytes<kType>;
      for (size_t byte = 0; byte < lanes * kColumnBytes; byte += 64) {
        PrefetchLine(ahead + i * kColumnBytes + byte);
      }
    }
    VF vw[kOutputs];
    HWY_UNROLL(4)
    for (size_t o = 0; o < kOutputs; ++o) {
      vw[o] = LoadWeights<kType>(w + o * row_bytes + i * kFloatBytes<kType>);
    }
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      const VF vx = hn::LoadU(df, rows[r] + i);
      HWY_UNROLL(4)
      for (size_t o = 0; o < kOutputs; ++o) sums[r][o] = hn::MulAdd(vw[o], vx, sums[r][o]);
    }
  }
  if (i < columns) {
    HWY_UNROLL(4)
    for (size_t o = 0; o < kOutputs; ++o) {
      HWY_ALIGN uint8_t padded[HWY_MAX_BYTES] = {};
      std::memcpy(padded, w + o * row_bytes + i * kFloatBytes<kType>,
                  (columns - i) * kFloatBytes<kType>);
      const VF vw = LoadWeights<kType>(padded);
      HWY_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        sums[r][o] = hn::MulAdd(vw, hn::LoadU(df, rows[r] + i), sums[r][o]);
      }
    }
  }
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t o = 0; o < kOutputs; ++o) {
      y[r * y_stride + o] = hn::GetLane(hn::SumOfLanes(df, sums[r][o]));
    }
  }
}

template <TensorType kType, size_t kOutputs>
HWY_INLINE void DotFloatRows(const uint8_t* w, size_t columns, uintptr_t ahead, const uint8_t* x,
                             size_t x_stride_bytes, size_t n_rows, float* y, size_t y_stride) {
  // 4 by 4 sums where there are 32 registers, else 2 by 4.
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3) || HWY_ARCH_ARM_A64
  constexpr size_t kMany = 4;
#else
  constexpr size_t kMany = 2;
#endif
  // The first rows fetch for all of them. Elsewhere caches may be too small for it.
  const auto dot = [=]<size_t kRows>(size_t r) HWY_ATTR {
    const uint8_t* rows = x + r * x_stride_bytes;
    float* out = y + r * y_stride;
    if (HWY_ARCH_X86 && r == 0) {
      DotFloats<kType, kRows, kOutputs, true>(w, columns, ahead, rows, x_stride_bytes, out,
                                              y_stride);
    } else {
      DotFloats<kType, kRows, kOutputs, false>(w, columns, ahead, rows, x_stride_bytes, out,
                                               y_stride);
    }
  };
  size_t r = 0;
  for (; r + kMany <= n_rows; r += kMany) dot.template operator()<kMany>(r);
  for (; r < n_rows; ++r) dot.template operator()<1>(r);
}

template <TensorType kType>
HWY_NOINLINE void MatMulFloat(const uint8_t* w, size_t n_outputs, size_t columns, const uint8_t* x,
                              size_t x_stride_bytes, size_t n_rows, float* y, size_t y_stride,
                              const void* next) {
  const size_t row_bytes = columns * kFloatBytes<kType>;
  const Ahead ahead(w, n_outputs * row_bytes, 4 * row_bytes, next);
  const auto rows = [&]<size_t kOutputs>(size_t o) HWY_ATTR {
    DotFloatRows<kType, kOutputs>(w + o * row_bytes, columns, ahead.Of(o * row_bytes), x,
                                  x_stride_bytes, n_rows, y + o, y_stride);
  };
  size_t o = 0;
  for (; o + 4 <= n_outputs; o += 4) rows.template operator()<4>(o);
  for (; o < n_outputs; ++o) rows.template operator()<1>(o);
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
