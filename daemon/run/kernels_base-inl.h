// What every kernel body shares: loads from bytes of any alignment, half floats, exp.
// Included once per SIMD target by the kernels_*-inl.h files. Memory: registers.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#if defined(THIMBLE_KERNELS_BASE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_BASE_INL_H_
#undef THIMBLE_KERNELS_BASE_INL_H_
#else
#define THIMBLE_KERNELS_BASE_INL_H_
#endif

// Highway 1.0.3 requires AVX512_VNNI of the processor before it picks AVX3_DL, but its attribute
// names only the later VEX form (avxvnni). Without this the compiler refuses _mm512_dpbusd_epi32.
// Cascade Lake has VNNI and not the rest of AVX3_DL: it runs AVX3, compiled here with VNNI, which
// kernels.cc takes from processors that have none (Skylake-X, which runs AVX2).
#if HWY_TARGET == HWY_AVX3 && !HWY_COMPILER_MSVC
#undef HWY_TARGET_STR
#define HWY_TARGET_STR HWY_TARGET_STR_AVX3 ",avx512vnni"
#endif
#if HWY_TARGET == HWY_AVX3_DL && !HWY_COMPILER_MSVC
#undef HWY_TARGET_STR
#define HWY_TARGET_STR \
  HWY_TARGET_STR_AVX3  \
  ",vpclmulqdq,avx512vbmi,avx512vbmi2,vaes,avxvnni,avx512vnni,avx512bitalg,avx512vpopcntdq"
#endif

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;

// The vector path needs 128-bit vectors; the scalar target runs plain loops instead.
#if HWY_TARGET == HWY_SCALAR
inline constexpr bool kVectors = false;
#else
inline constexpr bool kVectors = true;
#endif

// ARMv6 has no vectors, but instructions on pairs of 16-bit values: kernels_armv6-inl.h.
#undef THIMBLE_KERNELS_SMLAD
#if HWY_TARGET == HWY_SCALAR && defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_NEON)
#define THIMBLE_KERNELS_SMLAD 1
#else
#define THIMBLE_KERNELS_SMLAD 0
#endif

// The processor converts halves itself: F16C, ARMv8.
#undef THIMBLE_KERNELS_HALVES
#if (HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86) || HWY_ARCH_ARM_A64
#define THIMBLE_KERNELS_HALVES 1
#else
#define THIMBLE_KERNELS_HALVES 0
#endif

// Lanes(DF()) of values of T, read from any address (typed unaligned loads are undefined
// behaviour).
template <class D>
HWY_INLINE hn::Vec<D> LoadBytes(D d, const void* from) {
#if HWY_TARGET == HWY_SCALAR
  hn::TFromD<D> value;
  std::memcpy(&value, from, sizeof(value));
  return hn::Set(d, value);
#else
  const hn::Repartition<uint8_t, D> d8;
  return hn::BitCast(d, hn::LoadU(d8, static_cast<const uint8_t*>(from)));
#endif
}

HWY_INLINE uint16_t LoadU16(const uint8_t* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

HWY_INLINE uint32_t LoadU32(const uint8_t* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// Halves in the low 16 bits of each lane to floats, subnormals, infinities and NaN included: shift
// the fields into place, rebias the exponent, and let one subtraction normalize a subnormal.
HWY_INLINE VF HalfBitsToFloat(hn::Vec<DU> half) {
  const DU du;
  const DF df;
#if THIMBLE_KERNELS_SMLAD
  // Without select instructions a branch is cheaper, and a normal half needs no float arithmetic.
  // Exponents of all zeros or all ones are those that have, with one added, none of the middle
  // bits.
  if (HWY_LIKELY(((half.raw + 0x400U) & 0x7800U) != 0)) {
    const auto extended = static_cast<uint32_t>(static_cast<int16_t>(half.raw));
    return hn::BitCast(df, hn::Set(du, ((extended << 13) & 0x8FFFE000U) + ((127U - 15U) << 23)));
  }
#endif
  const auto exponent_mask = hn::Set(du, 0x7C00U << 13);
  auto bits = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7FFFU)));
  const auto exponent = hn::And(bits, exponent_mask);
  bits = hn::Add(bits, hn::Set(du, (127U - 15U) << 23));
  const auto special = hn::Add(bits, hn::Set(du, (128U - 16U) << 23));
  const auto magic = hn::Set(du, 113U << 23);
  const auto subnormal = hn::BitCast(
      du, hn::Sub(hn::BitCast(df, hn::Add(bits, hn::Set(du, 1U << 23))), hn::BitCast(df, magic)));
  bits = hn::IfThenElse(hn::Eq(exponent, exponent_mask), special, bits);
  bits = hn::IfThenElse(hn::Eq(exponent, hn::Zero(du)), subnormal, bits);
  return hn::BitCast(df, hn::Or(bits, hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000U)))));
}

// Lanes(DF()) halves at any address.
HWY_INLINE VF LoadHalf(const void* from) {
#if THIMBLE_KERNELS_HALVES
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(DF(), LoadBytes(d16, from));
#else
  const hn::Rebind<uint16_t, DF> d16;
  return HalfBitsToFloat(hn::PromoteTo(DU(), LoadBytes(d16, from)));
#endif
}

// One half in every lane.
HWY_INLINE VF SetHalf(uint16_t half) {
#if THIMBLE_KERNELS_HALVES
  const hn::Rebind<hwy::float16_t, DF> d16;
  const hn::Rebind<uint16_t, DF> du16;
  return hn::PromoteTo(DF(), hn::BitCast(d16, hn::Set(du16, half)));
#else
  return HalfBitsToFloat(hn::Set(DU(), half));
#endif
}

HWY_INLINE VF LoadBFloat(const void* from) {
  const hn::Rebind<uint16_t, DF> d16;
  return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), LoadBytes(d16, from))));
}

#if HWY_TARGET != HWY_SCALAR
// In each 128-bit block: [sum(a), sum(b), sum(c), sum(d)] of the blocks' four lanes.
template <class V>
HWY_INLINE V SumFour(V a, V b, V c, V d) {
  const hn::DFromV<V> di;
  const hn::Repartition<int64_t, decltype(di)> d64;
  const V ab = hn::Add(hn::InterleaveLower(di, a, b), hn::InterleaveUpper(di, a, b));
  const V cd = hn::Add(hn::InterleaveLower(di, c, d), hn::InterleaveUpper(di, c, d));
  const auto ab64 = hn::BitCast(d64, ab);
  const auto cd64 = hn::BitCast(d64, cd);
  return hn::Add(hn::BitCast(di, hn::InterleaveLower(d64, ab64, cd64)),
                 hn::BitCast(di, hn::InterleaveUpper(d64, ab64, cd64)));
}
#endif

// exp(x) with a relative error near 1e-7: 2^n * p(x - n ln 2), p of degree 7 after Cephes' expf.
// Zero below -87.3 (where the result would be subnormal), exp(88) above 88.
HWY_INLINE VF Exp(VF x) {
  const DF df;
  const DI di;
  const auto underflow = hn::Lt(x, hn::Set(df, -87.3F));
  x = hn::Min(hn::Max(x, hn::Set(df, -87.3F)), hn::Set(df, 88.0F));
  const VI n = hn::NearestInt(hn::Mul(x, hn::Set(df, 1.44269504F)));
  const VF nf = hn::ConvertTo(df, n);
  VF r = hn::NegMulAdd(nf, hn::Set(df, 0.693359375F), x);
  r = hn::NegMulAdd(nf, hn::Set(df, -2.12194440e-4F), r);
  VF p = hn::Set(df, 1.9875691500e-4F);
  p = hn::MulAdd(p, r, hn::Set(df, 1.3981999507e-3F));
  p = hn::MulAdd(p, r, hn::Set(df, 8.3334519073e-3F));
  p = hn::MulAdd(p, r, hn::Set(df, 4.1665795894e-2F));
  p = hn::MulAdd(p, r, hn::Set(df, 1.6666665459e-1F));
  p = hn::MulAdd(p, r, hn::Set(df, 5.0000001201e-1F));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(df, 1.0F));
  const VF power = hn::BitCast(df, hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
  return hn::IfThenZeroElse(underflow, hn::Mul(p, power));
}

// Calls body(i, x..) for whole vectors of [0, n), then once for a rest shorter than a vector, whose
// values the body sees through zero-padded copies. Elementwise: out[i] = body(a[i], b[i]).
template <class Body>
HWY_INLINE void Map2(const float* a, const float* b, size_t n, float* out, Body body) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(body(hn::LoadU(df, a + i), hn::LoadU(df, b + i)), df, out + i);
  }
  if (i < n) {
    HWY_ALIGN float pad_a[HWY_MAX_BYTES / sizeof(float)] = {};
    HWY_ALIGN float pad_b[HWY_MAX_BYTES / sizeof(float)] = {};
    std::memcpy(pad_a, a + i, (n - i) * sizeof(float));
    std::memcpy(pad_b, b + i, (n - i) * sizeof(float));
    hn::Store(body(hn::Load(df, pad_a), hn::Load(df, pad_b)), df, pad_a);
    std::memcpy(out + i, pad_a, (n - i) * sizeof(float));
  }
}

// An integer, since the address may lie beyond the weights, where a pointer may not point. On x86
// into the second-level cache: a line on its way into the first one occupies one of its few buffers
// for misses (24 on Zen 4) until memory has answered, which bounds the rate whatever is computed.
HWY_INLINE void PrefetchLine(uintptr_t address) {
  constexpr int kLocality = HWY_ARCH_X86 ? 2 : 3;  // prefetcht1, or into the first level
  // NOLINTNEXTLINE(*-no-int-to-ptr)
  __builtin_prefetch(reinterpret_cast<const uint8_t*>(address), 0, kLocality);
}

// Where the weights lie that are wanted some time after those in use: what is computed in the time
// that memory takes to answer, and some more. By whole groups of outputs, in which the order is
// another one; behind a tile come the weights at `next`, where there are any.
class Ahead {
 public:
  HWY_INLINE Ahead(const uint8_t* weights, size_t bytes, size_t group_bytes, const void* next)
      : weights_(reinterpret_cast<uintptr_t>(weights)),
        bytes_(bytes),
        ahead_bytes_((kLeastBytes + group_bytes - 1) / group_bytes * group_bytes),
        next_(reinterpret_cast<uintptr_t>(next)) {}
  // Of those `at` bytes from the first on.
  [[nodiscard]] HWY_INLINE uintptr_t Of(size_t at) const {
    const size_t ahead = at + ahead_bytes_;
    return next_ == 0 || ahead < bytes_ ? weights_ + ahead : next_ + (ahead - bytes_);
  }

 private:
  static constexpr size_t kLeastBytes = size_t{12} * 1024;
  const uintptr_t weights_;
  const size_t bytes_;
  const size_t ahead_bytes_;
  const uintptr_t next_;
};

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
