// Integer sums of unpacked tiles: dot products of bytes, the reduction of one row's sums across
// lanes, and the transposition that makes the reduction needless when several rows share a tile.
// Everything here is exact integer arithmetic. Memory: registers.
#if defined(THIMBLE_KERNELS_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_DOT_INL_H_
#undef THIMBLE_KERNELS_DOT_INL_H_
#else
#define THIMBLE_KERNELS_DOT_INL_H_
#endif

#include "daemon/run/kernels_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

template <size_t kGroup, bool kSigned>
HWY_INLINE void GroupSums(const Tile& tile, const int8_t* x, size_t n_blocks,
                          int32_t (*isums)[kTileOutputs]) {
  for (size_t o = 0; o < kTileOutputs; ++o) {
    for (size_t g = 0; g < n_blocks * kBlock / kGroup; ++g) {
      // Without an offset q is at most 127, or a signed byte: int8_t serves both.
      const auto* HWY_RESTRICT q = reinterpret_cast<const int8_t*>(tile.q[o]) + g * kGroup;
      const int8_t* HWY_RESTRICT xg = x + g * kGroup;
      int32_t sum = 0;
      for (size_t i = 0; i < kGroup; ++i) sum += int32_t{q[i]} * int32_t{xg[i]};
      isums[g][o] = sum;
    }
  }
}

#else  // vectors of 128 bits or more

using DBytes = hn::ScalableTag<uint8_t>;
using VBytes = hn::Vec<DBytes>;

// w: at most 127, or kSigned: signed bytes (xor kSignFlip, whose effect the caller takes away).
// x: in [-127, 127].
#if THIMBLE_KERNELS_256

// Sums of two products, in 16-bit lanes: 127 * 127 * 2 and, with the sign moved to x, 128 * 127 * 2
// fit.
template <bool kSigned>
HWY_INLINE __m256i PairSums(VBytes w, VBytes x) {
  if constexpr (kSigned) {
    x.raw = _mm256_sign_epi8(x.raw, w.raw);
    w.raw = _mm256_abs_epi8(w.raw);  // of -128 it is 128 as an unsigned byte
  }
  return _mm256_maddubs_epi16(w.raw, x.raw);
}
HWY_INLINE VI AddPairs(VI acc, __m256i pairs) {
  return hn::Add(acc, VI{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
}
// The value is computed here and now: GCC else makes trees of chains of sums, of which it has to
// put half into memory.
HWY_INLINE void KeepHere(__m256i& v) { asm("" : "+x"(v)); }

#else

// acc[i] + the sum of the four products w[4i + j] * x[4i + j].
template <bool kSigned, class VInt, class VByte>
HWY_INLINE VInt DotQuads(VInt acc, VByte w, VByte x) {
#if THIMBLE_KERNELS_512
  return VInt{_mm512_dpbusd_epi32(acc.raw, w.raw, x.raw)};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
  // As PairSums.
  const hn::DFromV<VInt> di;
  const hn::Repartition<int16_t, decltype(di)> d16;
  const hn::Repartition<int8_t, decltype(di)> d8;
  const hn::RebindToUnsigned<decltype(d8)> du8;
  if constexpr (kSigned) {
    const auto signed_w = hn::BitCast(d8, w);
    const auto signed_x = hn::BitCast(d8, x);
    x = hn::BitCast(du8,
                    hn::IfThenElse(hn::Lt(signed_w, hn::Zero(d8)), hn::Neg(signed_x), signed_x));
    // abs(-128) is 128 as an unsigned byte.
    w = hn::Min(w, hn::BitCast(du8, hn::Neg(signed_w)));
  }
  const hn::Vec<decltype(d16)> pairs{_mm_maddubs_epi16(w.raw, x.raw)};
  return hn::Add(acc, VInt{_mm_madd_epi16(pairs.raw, hn::Set(d16, 1).raw)});
#else
  // Even and odd bytes as 16-bit lanes; the sum of two products, at most 128 * 127 * 2, fits.
  const hn::DFromV<VInt> di;
  const hn::Repartition<int16_t, decltype(di)> d16;
  const auto w16 = hn::BitCast(d16, w);
  const auto x16 = hn::BitCast(d16, x);
  const auto even =
      hn::Mul(hn::ShiftRight<8>(hn::ShiftLeft<8>(w16)), hn::ShiftRight<8>(hn::ShiftLeft<8>(x16)));
  const auto odd = hn::Mul(hn::ShiftRight<8>(w16), hn::ShiftRight<8>(x16));
  const auto pairs = hn::BitCast(di, hn::Add(even, odd));
  return hn::Add(acc,
                 hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)), hn::ShiftRight<16>(pairs)));
#endif
}

#endif

// Four activations in every 32-bit lane.
HWY_INLINE VBytes BroadcastQuad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof(quad));
  return hn::BitCast(DBytes(), hn::Set(DI(), quad));
}

// The first `kWords` of 4 words each of rows a..d, transposed: out j = [a_j, b_j, c_j, d_j], in
// each 128-bit block.
template <class V>
HWY_INLINE void TransposeWords(V a, V b, V c, V d, V* out) {
  const hn::DFromV<V> du;
  const hn::Repartition<uint64_t, decltype(du)> d64;
  const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(du, a, b));
  const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(du, a, b));
  const auto cd_low = hn::BitCast(d64, hn::InterleaveLower(du, c, d));
  const auto cd_high = hn::BitCast(d64, hn::InterleaveUpper(du, c, d));
  out[0] = hn::BitCast(du, hn::InterleaveLower(d64, ab_low, cd_low));
  out[1] = hn::BitCast(du, hn::InterleaveUpper(d64, ab_low, cd_low));
  out[2] = hn::BitCast(du, hn::InterleaveLower(d64, ab_high, cd_high));
  out[3] = hn::BitCast(du, hn::InterleaveUpper(d64, ab_high, cd_high));
}

#if THIMBLE_KERNELS_512

// 128-bit blocks: [a0, a2, b0, b2] and [a1, a3, b1, b3].
HWY_INLINE __m512i EvenBlocks(__m512i a, __m512i b) { return _mm512_shuffle_i32x4(a, b, 0x88); }
HWY_INLINE __m512i OddBlocks(__m512i a, __m512i b) { return _mm512_shuffle_i32x4(a, b, 0xDD); }

// isums[g][o] = the sum over group g of w(o) * x, where load(o, column) is 64 weights of output o.
// Reads x in whole 64 bytes: a prepared row has that room after its values.
template <size_t kGroup, bool kSigned, class Load>
HWY_INLINE void GroupSumsOf(Load load, const int8_t* x, size_t n_blocks,
                            int32_t (*isums)[kTileOutputs]) {
  const DI di;
  const DBytes d8;
  for (size_t column = 0; column < n_blocks * kBlock; column += 64) {
    const VBytes vx = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(x) + column);
    VI four[4];
    HWY_UNROLL(16)
    for (size_t i = 0; i < 4; ++i) {
      VI sums[4];
      HWY_UNROLL(16)
      for (size_t j = 0; j < 4; ++j) {
        const VBytes w = load(4 * i + j, column);
        sums[j] = DotQuads<kSigned>(hn::Zero(di), w, vx);
      }
      four[i] = SumFour(sums[0], sums[1], sums[2], sums[3]);
    }
    // four[i]: block j is group 16j of outputs 4i..4i+3.
    const __m512i even01 = EvenBlocks(four[0].raw, four[1].raw);
    const __m512i odd01 = OddBlocks(four[0].raw, four[1].raw);
    const __m512i even23 = EvenBlocks(four[2].raw, four[3].raw);
    const __m512i odd23 = OddBlocks(four[2].raw, four[3].raw);
    int32_t* to = isums[column / kGroup];
    if constexpr (kGroup == 32) {
      const __m512i low = _mm512_add_epi32(even01, odd01);
      const __m512i high = _mm512_add_epi32(even23, odd23);
      hn::Store(VI{EvenBlocks(low, high)}, di, to);
      hn::Store(VI{OddBlocks(low, high)}, di, to + 16);
    } else {
      hn::Store(VI{EvenBlocks(even01, even23)}, di, to);
      hn::Store(VI{EvenBlocks(odd01, odd23)}, di, to + 16);
      hn::Store(VI{OddBlocks(even01, even23)}, di, to + 32);
      hn::Store(VI{OddBlocks(odd01, odd23)}, di, to + 48);
    }
  }
}

template <size_t kGroup, bool kSigned>
HWY_INLINE void GroupSums(const Tile& tile, const int8_t* x, size_t n_blocks,
                          int32_t (*isums)[kTileOutputs]) {
  GroupSumsOf<kGroup, kSigned>([&tile](size_t o, size_t column)
                                   HWY_ATTR { return hn::LoadU(DBytes(), tile.q[o] + column); },
                               x, n_blocks, isums);
}

// tile.packed from tile.q.
HWY_INLINE void PackTile(size_t n_blocks, Tile& tile) {
  const DBytes d8;
  for (size_t column = 0; column < n_blocks * kBlock; column += 64) {
    VI words[4][4];
    HWY_UNROLL(16)
    for (size_t i = 0; i < 4; ++i) {
      VI rows[4];
      HWY_UNROLL(16)
      for (size_t j = 0; j < 4; ++j) {
        rows[j] = hn::BitCast(DI(), hn::LoadU(d8, tile.q[4 * i + j] + column));
      }
      TransposeWords(rows[0], rows[1], rows[2], rows[3], words[i]);
    }
    // words[i][j]: block m is word 4m + j of outputs 4i..4i+3.
    HWY_UNROLL(16)
    for (size_t j = 0; j < 4; ++j) {
      const __m512i even01 = EvenBlocks(words[0][j].raw, words[1][j].raw);
      const __m512i odd01 = OddBlocks(words[0][j].raw, words[1][j].raw);
      const __m512i even23 = EvenBlocks(words[2][j].raw, words[3][j].raw);
      const __m512i odd23 = OddBlocks(words[2][j].raw, words[3][j].raw);
      const __m512i by_word[4] = {EvenBlocks(even01, even23), EvenBlocks(odd01, odd23),
                                  OddBlocks(even01, even23), OddBlocks(odd01, odd23)};
      HWY_UNROLL(16)
      for (size_t m = 0; m < 4; ++m) {
        uint8_t* to = tile.packed[column / 4 + 4 * m + j][0];
        hn::Store(VBytes{by_word[m]}, d8, to);
      }
    }
  }
}

#else

#if THIMBLE_KERNELS_256
// The sums of the two halves of a, then of b.
HWY_INLINE VI AddHalves(VI a, VI b) {
  return hn::Add(VI{_mm256_permute2x128_si256(a.raw, b.raw, 0x20)},
                 VI{_mm256_permute2x128_si256(a.raw, b.raw, 0x31)});
}

// As above, 32 columns of eight outputs at a time.
template <size_t kGroup, bool kSigned>
HWY_INLINE void GroupSums(const Tile& tile, const int8_t* x, size_t n_blocks,
                          int32_t (*isums)[kTileOutputs]) {
  const DI di;
  const DBytes d8;
  for (size_t column = 0; column < n_blocks * kBlock; column += 32) {
    const VBytes vx = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(x) + column);
    int32_t* to = isums[column / kGroup];
    HWY_UNROLL(2)
    for (size_t o = 0; o < kTileOutputs; o += 8) {
      VI sums[8];
      HWY_UNROLL(8)
      for (size_t i = 0; i < 8; ++i) {
        const VBytes w = hn::LoadU(d8, tile.q[o + i] + column);
        sums[i] = AddPairs(hn::Zero(di), PairSums<kSigned>(w, vx));
      }
      // In the low half of the columns' first 16, in the high one of the others.
      const VI a = SumFour(sums[0], sums[1], sums[2], sums[3]);
      const VI b = SumFour(sums[4], sums[5], sums[6], sums[7]);
      if constexpr (kGroup == 32) {
        hn::Store(AddHalves(a, b), di, to + o);
      } else {
        hn::Store(VI{_mm256_permute2x128_si256(a.raw, b.raw, 0x20)}, di, to + o);
        hn::Store(VI{_mm256_permute2x128_si256(a.raw, b.raw, 0x31)}, di, to + kTileOutputs + o);
      }
    }
  }
}
#else
// As above, 16 columns of four outputs at a time.
template <size_t kGroup, bool kSigned>
HWY_INLINE void GroupSums(const Tile& tile, const int8_t* x, size_t n_blocks,
                          int32_t (*isums)[kTileOutputs]) {
  const hn::FixedTag<uint8_t, 16> d8;
  const hn::FixedTag<int32_t, 4> di;
  for (size_t g = 0; g < n_blocks * kBlock / kGroup; ++g) {
    for (size_t o = 0; o < kTileOutputs; o += 4) {
      auto a = hn::Zero(di);
      auto b = hn::Zero(di);
      auto c = hn::Zero(di);
      auto d = hn::Zero(di);
      for (size_t column = g * kGroup; column < (g + 1) * kGroup; column += 16) {
        const auto vx = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(x) + column);
        a = DotQuads<kSigned>(a, hn::LoadU(d8, tile.q[o] + column), vx);
        b = DotQuads<kSigned>(b, hn::LoadU(d8, tile.q[o + 1] + column), vx);
        c = DotQuads<kSigned>(c, hn::LoadU(d8, tile.q[o + 2] + column), vx);
        d = DotQuads<kSigned>(d, hn::LoadU(d8, tile.q[o + 3] + column), vx);
      }
      hn::Store(SumFour(a, b, c, d), di, isums[g] + o);
    }
  }
}

#endif

HWY_INLINE void PackTile(size_t n_blocks, Tile& tile) {
  const hn::FixedTag<uint8_t, 16> d8;
  const hn::FixedTag<uint32_t, 4> du;
  for (size_t o = 0; o < kTileOutputs; o += 4) {
    for (size_t column = 0; column < n_blocks * kBlock; column += 16) {
      hn::Vec<decltype(du)> words[4];
      TransposeWords(hn::BitCast(du, hn::LoadU(d8, tile.q[o] + column)),
                     hn::BitCast(du, hn::LoadU(d8, tile.q[o + 1] + column)),
                     hn::BitCast(du, hn::LoadU(d8, tile.q[o + 2] + column)),
                     hn::BitCast(du, hn::LoadU(d8, tile.q[o + 3] + column)), words);
      HWY_UNROLL(16)
      for (size_t j = 0; j < 4; ++j) {
        hn::StoreU(hn::BitCast(d8, words[j]), d8, tile.packed[column / 4 + j][o]);
      }
    }
  }
}

#endif

// to[g][o] = from[o][g] for g < kGroups (8 or 16): four rounds of interleaving halves.
template <size_t kGroups>
HWY_INLINE void TransposeBytes(const uint8_t (*from)[16], uint8_t (*to)[16]) {
  const hn::FixedTag<uint8_t, 16> d8;
  hn::Vec<decltype(d8)> rows[16];
  HWY_UNROLL(16)
  for (size_t o = 0; o < 16; ++o) rows[o] = hn::LoadU(d8, from[o]);
  HWY_UNROLL(16)
  for (int round = 0; round < 4; ++round) {
    hn::Vec<decltype(d8)> next[16];
    HWY_UNROLL(16)
    for (size_t i = 0; i < 8; ++i) {
      next[2 * i] = hn::InterleaveLower(d8, rows[i], rows[i + 8]);
      next[2 * i + 1] = hn::InterleaveUpper(d8, rows[i], rows[i + 8]);
    }
    HWY_UNROLL(16)
    for (size_t i = 0; i < 16; ++i) rows[i] = next[i];
  }
  HWY_UNROLL(16)
  for (size_t g = 0; g < kGroups; ++g) hn::StoreU(rows[g], d8, to[g]);
}

#endif  // vectors

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
