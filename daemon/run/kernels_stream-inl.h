// One row's products straight from the blocks: 64 values at a time in a 512-bit register, without a
// stop in the tile, for the types most models are in. The other types and targets go through the
// tile. Memory: registers.
#if defined(THIMBLE_KERNELS_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_STREAM_INL_H_
#undef THIMBLE_KERNELS_STREAM_INL_H_
#else
#define THIMBLE_KERNELS_STREAM_INL_H_
#endif

#include "daemon/run/kernels_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

// Load64(row, column, whole): values [column, column + 64) of a row's blocks, as Unpack would store
// them; where a row ends in the middle (`whole` is false) the last 32 are anything.
template <TensorType kType>
struct Stream {
  static constexpr bool kExists = false;
};

#if THIMBLE_KERNELS_512

// (low 256 bits: v >> a, high 256 bits: v >> b), in 16-bit lanes; the caller masks.
template <int kLow, int kHigh>
HWY_INLINE __m512i ShiftHalves(__m512i v) {
  const __m512i counts = _mm512_inserti64x4(_mm512_set1_epi16(kLow), _mm256_set1_epi16(kHigh), 1);
  return _mm512_srlv_epi16(v, counts);
}
HWY_INLINE __m512i Both256(const uint8_t* from) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

template <>
struct Stream<TensorType::kQ8_0> {
  static constexpr size_t kBytes = Block<TensorType::kQ8_0>::kBytes;
  static constexpr bool kExists = true;
  static HWY_INLINE __m512i Load64(const uint8_t* row, size_t column, bool whole) {
    const uint8_t* at = row + column / kBlock * kBytes + 2;
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
    if (whole) {
      v = _mm512_inserti64x4(v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + kBytes)),
                             1);
    }
    return _mm512_xor_si512(v, _mm512_set1_epi8(static_cast<char>(kSignFlip)));
  }
};

template <>
struct Stream<TensorType::kQ4_0> {
  static constexpr size_t kBytes = Block<TensorType::kQ4_0>::kBytes;
  static constexpr bool kExists = true;
  static HWY_INLINE __m512i Load64(const uint8_t* row, size_t column, bool whole) {
    const uint8_t* at = row + column / kBlock * kBytes + 2;
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    if (whole) {
      v = _mm256_inserti128_si256(v, _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + kBytes)),
                                  1);
    }
    // Blocks of 128 bits [a, a, b, b], the second of each pair shifted to its high nibbles.
    const __m512i wide = _mm512_castsi256_si512(v);
    const __m512i both = _mm512_shuffle_i64x2(wide, wide, 0x50);
    const __m512i counts = _mm512_set_epi64(0x0004000400040004, 0x0004000400040004, 0, 0,
                                            0x0004000400040004, 0x0004000400040004, 0, 0);
    return _mm512_and_si512(_mm512_srlv_epi16(both, counts), _mm512_set1_epi8(15));
  }
};

template <>
struct Stream<TensorType::kQ4_K> {
  static constexpr bool kExists = true;
  static HWY_INLINE __m512i Load64(const uint8_t* block, size_t column, bool /*whole*/) {
    const __m512i v = ShiftHalves<0, 4>(Both256(block + 16 + column / 2));
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
  }
};

template <>
struct Stream<TensorType::kQ6_K> {
  static constexpr bool kExists = true;
  static HWY_INLINE __m512i Load64(const uint8_t* block, size_t column, bool /*whole*/) {
    const size_t half = column / 128;
    const __m512i low = _mm512_loadu_si512(block + half * 64);
    const __m512i high = Both256(block + 128 + half * 32);
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i pair = _mm512_set1_epi8(48);
    if (column % 128 == 0) {
      const __m512i up = _mm512_slli_epi16(high, 4);
      return _mm512_or_si512(_mm512_and_si512(low, nibble),
                             _mm512_and_si512(ShiftHalves<0, 2>(up), pair));
    }
    return _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), nibble),
                           _mm512_and_si512(ShiftHalves<0, 2>(high), pair));
  }
};

#endif

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
