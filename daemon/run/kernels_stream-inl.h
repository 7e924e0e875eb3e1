// Products straight from the blocks, without a stop in the tile, for the types most models are in:
// of one row in registers of 512 bits, and of 256 where the blocks are of 32; of several rows in
// registers of 512 bits where the blocks are of 32. The other types and targets go through the
// tile. Memory: registers.
#if defined(THIMBLE_KERNELS_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_STREAM_INL_H_
#undef THIMBLE_KERNELS_STREAM_INL_H_
#else
#define THIMBLE_KERNELS_STREAM_INL_H_
#endif

#include "daemon/run/kernels_blocks-inl.h"
#include "daemon/run/kernels_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

// Blocks of 32 (kByBlock): Dots(block, row_bytes, x), the sums of 32 products of as many outputs as
// a vector has lanes, the first of whose blocks is `block`. Others: Load64(row, column), values
// [column, column + 64) of a row's block of 256, as Unpack would store them.
template <TensorType kType>
struct Stream {
  static constexpr bool kExists = false;
  static constexpr bool kByBlock = false;
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

// 16 bytes each from `from`, and 4, 8 and 12 rows on: of outputs o, o + 4, o + 8, o + 12.
HWY_INLINE __m512i EveryFourth(const uint8_t* from, size_t row_bytes) {
  const auto at = [=](size_t row) HWY_ATTR {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + row * row_bytes));
  };
  __m512i v = _mm512_castsi128_si512(at(0));
  v = _mm512_inserti32x4(v, at(4), 1);
  v = _mm512_inserti32x4(v, at(8), 2);
  return _mm512_inserti32x4(v, at(12), 3);
}
HWY_INLINE __m512i FourTimes(const int8_t* from) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// kFirst: of a block's bytes, where its values begin. kNibbles: two to a byte, the first 16 in the
// low halves; else bytes with a sign. Beside Dots: Quads(block, row_bytes, out), the block's values
// of 16 outputs in columns 4j to 4j + 3 in out[j].
template <size_t kFirst, bool kNibbles>
struct StreamBlocks {
  static constexpr bool kExists = true;
  static constexpr bool kByBlock = true;
  static HWY_INLINE void Quads(const uint8_t* block, size_t row_bytes, VI* out) {
    HWY_UNROLL(2)
    for (size_t half = 0; half < (kNibbles ? 1 : 2); ++half) {
      VI rows[4];
      HWY_UNROLL(4)
      for (size_t i = 0; i < 4; ++i) {
        rows[i] = VI{EveryFourth(block + i * row_bytes + kFirst + 16 * half, row_bytes)};
      }
      VI quads[4];
      TransposeWords(rows[0], rows[1], rows[2], rows[3], quads);
      HWY_UNROLL(4)
      for (size_t j = 0; j < 4; ++j) {
        if constexpr (kNibbles) {
          const __m512i nibble = _mm512_set1_epi8(15);
          out[j] = VI{_mm512_and_si512(quads[j].raw, nibble)};
          out[4 + j] = VI{_mm512_and_si512(_mm512_srli_epi16(quads[j].raw, 4), nibble)};
        } else {
          const __m512i flip = _mm512_set1_epi8(static_cast<char>(kSignFlip));
          out[4 * half + j] = VI{_mm512_xor_si512(quads[j].raw, flip)};
        }
      }
    }
  }
  static HWY_INLINE VI Dots(const uint8_t* block, size_t row_bytes, const int8_t* x) {
    const __m512i first_x = FourTimes(x);
    const __m512i second_x = FourTimes(x + 16);
    VI four[4];
    HWY_UNROLL(4)
    for (size_t i = 0; i < 4; ++i) {
      const uint8_t* values = block + i * row_bytes + kFirst;
      __m512i first = EveryFourth(values, row_bytes);
      __m512i second;
      if constexpr (kNibbles) {
        const __m512i nibble = _mm512_set1_epi8(15);
        second = _mm512_and_si512(_mm512_srli_epi16(first, 4), nibble);
        first = _mm512_and_si512(first, nibble);
      } else {
        const __m512i flip = _mm512_set1_epi8(static_cast<char>(kSignFlip));
        second = _mm512_xor_si512(EveryFourth(values + 16, row_bytes), flip);
        first = _mm512_xor_si512(first, flip);
      }
      const VI sums{_mm512_dpbusd_epi32(_mm512_setzero_si512(), first, first_x)};
      four[i] = VI{_mm512_dpbusd_epi32(sums.raw, second, second_x)};
    }
    // four[i]: in 128-bit block j output i + 4j.
    return SumFour(four[0], four[1], four[2], four[3]);
  }
};

template <>
struct Stream<TensorType::kQ4_K> {
  static constexpr bool kByBlock = false;
  static constexpr bool kExists = true;
  static HWY_INLINE __m512i Load64(const uint8_t* block, size_t column) {
    const __m512i v = ShiftHalves<0, 4>(Both256(block + 16 + column / 2));
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
  }
};

template <>
struct Stream<TensorType::kQ6_K> {
  static constexpr bool kByBlock = false;
  static constexpr bool kExists = true;
  static HWY_INLINE __m512i Load64(const uint8_t* block, size_t column) {
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

#elif THIMBLE_KERNELS_256

// Beside Dots: Pack(block, row_bytes, out), the block's values of 16 outputs as Tile::packed has
// them, eight quads of columns.
template <size_t kFirst, bool kNibbles>
struct StreamBlocks {
  static constexpr bool kExists = true;
  static constexpr bool kByBlock = true;
  static HWY_INLINE void Pack(const uint8_t* block, size_t row_bytes,
                              uint8_t (*out)[kTileOutputs][4]) {
    HWY_UNROLL(2)
    for (size_t o = 0; o < kTileOutputs; o += 8) {
      HWY_UNROLL(2)
      for (size_t half = 0; half < (kNibbles ? 1 : 2); ++half) {
        const uint8_t* from = block + o * row_bytes + kFirst + 16 * half;
        const auto load = [=](size_t row) HWY_ATTR {
          return reinterpret_cast<const __m128i*>(from + row * row_bytes);
        };
        VI rows[4];
        VI quads[4];
        HWY_UNROLL(4)
        for (size_t i = 0; i < 4; ++i) rows[i] = VI{_mm256_loadu2_m128i(load(i + 4), load(i))};
        TransposeWords(rows[0], rows[1], rows[2], rows[3], quads);
        HWY_UNROLL(4)
        for (size_t j = 0; j < 4; ++j) {
          const VBytes values{quads[j].raw};
          if constexpr (kNibbles) {
            const VBytes nibble = hn::Set(DBytes(), 15);
            const VBytes high{_mm256_srli_epi16(values.raw, 4)};
            hn::Store(hn::And(values, nibble), DBytes(), out[j][o]);
            hn::Store(hn::And(high, nibble), DBytes(), out[4 + j][o]);
          } else {
            hn::Store(values, DBytes(), out[4 * half + j][o]);
          }
        }
      }
    }
  }
  static HWY_INLINE VI Dots(const uint8_t* block, size_t row_bytes, const int8_t* x) {
    const auto load = [=](size_t row) HWY_ATTR {
      return reinterpret_cast<const __m128i*>(block + row * row_bytes + kFirst);
    };
    if constexpr (kNibbles) {
      const auto* halves = reinterpret_cast<const __m128i*>(x);
      const __m256i first_x = _mm256_broadcastsi128_si256(_mm_loadu_si128(halves));
      const __m256i second_x = _mm256_broadcastsi128_si256(_mm_loadu_si128(halves + 1));
      const __m256i nibble = _mm256_set1_epi8(15);
      VI four[4];
      HWY_UNROLL(4)
      for (size_t i = 0; i < 4; ++i) {
        // Of outputs i and i + 4. Sums of four products, at most 4 * 15 * 127, fit 16 bits.
        const __m256i both = _mm256_loadu2_m128i(load(i + 4), load(i));
        const __m256i first = _mm256_and_si256(both, nibble);
        const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        const __m256i sums = _mm256_add_epi16(_mm256_maddubs_epi16(first, first_x),
                                              _mm256_maddubs_epi16(second, second_x));
        four[i] = AddPairs(hn::Zero(DI()), sums);
      }
      return SumFour(four[0], four[1], four[2], four[3]);
    } else {
      const VBytes vx = hn::LoadU(DBytes(), reinterpret_cast<const uint8_t*>(x));
      VI rows[8];
      HWY_UNROLL(8)
      for (size_t i = 0; i < 8; ++i) {
        const VBytes w = hn::LoadU(DBytes(), reinterpret_cast<const uint8_t*>(load(i)));
        rows[i] = AddPairs(hn::Zero(DI()), PairSums<true>(w, vx));
      }
      return AddHalves(SumFour(rows[0], rows[1], rows[2], rows[3]),
                       SumFour(rows[4], rows[5], rows[6], rows[7]));
    }
  }
};

#endif

#if THIMBLE_KERNELS_STREAM
template <>
struct Stream<TensorType::kQ8_0> : StreamBlocks<2, false> {};
template <>
struct Stream<TensorType::kQ4_0> : StreamBlocks<2, true> {};
template <>
struct Stream<TensorType::kQ4_1> : StreamBlocks<4, true> {};
#endif

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
