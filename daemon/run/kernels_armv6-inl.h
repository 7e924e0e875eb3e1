// Quantized products on ARMv6, which has no vectors but SMLAD: two products of signed 16-bit values
// and their sum, added to a third, in one cycle. Four bytes of weights become two pairs of 16 bits
// by SXTB16, eight nibbles four pairs by a mask each (the shift is free), in registers; the
// activations are split likewise, once per tile and row. Q8_0 and Q4_0 are read from their blocks,
// the other types from the unpacked tile.
//
// The sums of a group are exact integers, so the order is free; the float operations are
// AddGroup's, as everywhere. Memory: 1 KiB of stack.
#include <algorithm>
#include <type_traits>

#if defined(THIMBLE_KERNELS_ARMV6_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_ARMV6_INL_H_
#undef THIMBLE_KERNELS_ARMV6_INL_H_
#else
#define THIMBLE_KERNELS_ARMV6_INL_H_
#endif

#include "daemon/run/kernels_rows-inl.h"

#if THIMBLE_KERNELS_SMLAD
#include <arm_acle.h>

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

// A word's bytes 0 and 2, sign-extended, and its bytes 1 and 3 (for which there is no intrinsic).
HWY_INLINE int16x2_t EvenBytes(uint32_t word) { return __sxtb16(static_cast<int8x4_t>(word)); }
HWY_INLINE int16x2_t OddBytes(uint32_t word) {
  int16x2_t pair;
  asm("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
  return pair;
}

// A group of activations of kRows rows, as the sums take them.
template <class C, size_t kRows>
struct PairedGroup {
  // Of every four columns and row the even ones, then the odd ones.
  alignas(8) int16x2_t pairs[C::kGroup / 4][kRows][2];
  int32_t start[kRows];   // what the weights' offset takes away
  float scale[kRows];     // of the activations
  float weighted[kRows];  // scale * sum, for weights with minimums
};

template <class C, size_t kRows>
HWY_INLINE void PairRows(const RowView* views, size_t n_groups, int offset,
                         PairedGroup<C, kRows>* groups) {
  for (size_t r = 0; r < kRows; ++r) {
    const auto* q = reinterpret_cast<const uint8_t*>(views[r].q);
    for (size_t g = 0; g < n_groups; ++g) {
      PairedGroup<C, kRows>& group = groups[g];
      HWY_UNROLL(8)
      for (size_t i = 0; i < C::kGroup / 4; ++i, q += 4) {
        const uint32_t word = LoadU32(q);
        group.pairs[i][r][0] = EvenBytes(word);
        group.pairs[i][r][1] = OddBytes(word);
      }
      const int sum = GroupSum<C>(views[r].sum, g);
      group.start[r] = -offset * sum;
      group.scale[r] = views[r].scale[g * C::kGroup / kBlock];
      if constexpr (C::kHasMin) group.weighted[r] = group.scale[r] * static_cast<float>(sum);
    }
  }
}

// Four weights a word. Pair<half, odd> are two of them; half `half` of word i goes with the
// activations of columns 4 * At(i, half) to 4 * At(i, half) + 3 of the group.
struct ByteWeights {
  static constexpr size_t kHalves = 1;
  static constexpr size_t At(size_t i, size_t /*half*/) { return i; }
  template <size_t kHalf, size_t kOdd>
  static HWY_INLINE int16x2_t Pair(uint32_t word) {
    return kOdd == 0 ? EvenBytes(word) : OddBytes(word);
  }
};

// Eight, as Q4_0 has them: low nibbles are the first 16 values of a block, high nibbles the
// last 16.
struct NibbleWeights {
  static constexpr size_t kHalves = 2;
  static constexpr size_t At(size_t i, size_t half) { return i + 4 * half; }
  template <size_t kHalf, size_t kOdd>
  static HWY_INLINE int16x2_t Pair(uint32_t word) {
    return static_cast<int16x2_t>((word >> (4 * kHalf + 8 * kOdd)) & 0x000F000FU);
  }
};

// Outputs that share loaded activations. With four, sums, words and pairs do not fit ARM's 14
// registers, and one row takes an eighth (Q8_0) to a quarter (Q4_0) more instructions.
inline constexpr size_t kOutputs = 2;

// sums[r][o] += the products of one half of words[o] with row r. x: [kRows][2] pairs.
template <class Weights, size_t kHalf, size_t kRows>
HWY_INLINE void AddHalf(const uint32_t* words, const int16x2_t (*x)[2], int32_t (*sums)[kOutputs]) {
  int16x2_t even[kRows];
  int16x2_t odd[kRows];
  HWY_UNROLL(2)
  for (size_t r = 0; r < kRows; ++r) {
    // Both pairs by one load: the compiler would make two of it.
    uint64_t both;
    asm("ldrd %0, %H0, %1"
        : "=r"(both)
        : "m"(*reinterpret_cast<const uint64_t __attribute__((may_alias))*>(x[r])));
    even[r] = static_cast<int16x2_t>(both);
    odd[r] = static_cast<int16x2_t>(both >> 32);
  }
  HWY_UNROLL(2)
  for (size_t o = 0; o < kOutputs; ++o) {
    const int16x2_t w_even = Weights::template Pair<kHalf, 0>(words[o]);
    const int16x2_t w_odd = Weights::template Pair<kHalf, 1>(words[o]);
    HWY_UNROLL(2)
    for (size_t r = 0; r < kRows; ++r) sums[r][o] = __smlad(w_even, even[r], sums[r][o]);
    HWY_UNROLL(2)
    for (size_t r = 0; r < kRows; ++r) sums[r][o] = __smlad(w_odd, odd[r], sums[r][o]);
  }
}

// acc[r][o] += the products of kRows rows with the tile's first n_outputs outputs, kOutputs at a
// time. weights: output o's groups begin at weights + o * row_bytes and lie kGroupBytes apart. The
// float operations and their order are AddGroup's.
template <class C, class Weights, size_t kGroupBytes, size_t kRows>
HWY_NOINLINE void AddPairedRows(const uint8_t* weights, size_t row_bytes, const Tile& tile,
                                const RowView* views, size_t n_groups, int offset, size_t n_outputs,
                                float (*acc)[kTileOutputs]) {
  constexpr size_t kWords = C::kGroup / 4 / Weights::kHalves;
  PairedGroup<C, kRows> groups[kTileColumns / C::kGroup];
  PairRows<C, kRows>(views, n_groups, offset, groups);
  for (size_t o = 0; o < n_outputs; o += kOutputs) {
    const uint8_t* w[kOutputs];
    float sums[kRows][kOutputs];
    HWY_UNROLL(2)
    for (size_t i = 0; i < kOutputs; ++i) {
      // Past the end the last output is computed again; acc has room for it.
      w[i] = weights + std::min(o + i, n_outputs - 1) * row_bytes;
      HWY_UNROLL(2)
      for (size_t r = 0; r < kRows; ++r) sums[r][i] = acc[r][o + i];
    }
    const float* scale = tile.scale[0] + o;
    const float* min = tile.min[0] + o;
    const PairedGroup<C, kRows>* const end = groups + n_groups;
    for (const PairedGroup<C, kRows>* x = groups; x != end; ++x) {
      int32_t isums[kRows][kOutputs];
      HWY_UNROLL(2)
      for (size_t r = 0; r < kRows; ++r) {
        HWY_UNROLL(2)
        for (size_t i = 0; i < kOutputs; ++i) isums[r][i] = x->start[r];
      }
      HWY_UNROLL(8)
      for (size_t k = 0; k < kWords; ++k) {
        uint32_t words[kOutputs];
        HWY_UNROLL(2)
        for (size_t i = 0; i < kOutputs; ++i) words[i] = LoadU32(w[i] + 4 * k);
        AddHalf<Weights, 0, kRows>(words, x->pairs[Weights::At(k, 0)], isums);
        if constexpr (Weights::kHalves == 2) {
          AddHalf<Weights, 1, kRows>(words, x->pairs[Weights::At(k, 1)], isums);
        }
        // Or else the compiler moves all loads to the front, and what they load to the stack and
        // back.
        asm volatile("" ::: "memory");
      }
      HWY_UNROLL(2)
      for (size_t i = 0; i < kOutputs; ++i) {
        w[i] += kGroupBytes;
        HWY_UNROLL(2)
        for (size_t r = 0; r < kRows; ++r) {
          sums[r][i] += static_cast<float>(isums[r][i]) * (scale[i] * x->scale[r]);
          if constexpr (C::kHasMin) sums[r][i] += min[i] * x->weighted[r];
        }
      }
      scale += kTileOutputs;
      min += kTileOutputs;
    }
    HWY_UNROLL(2)
    for (size_t i = 0; i < kOutputs; ++i) {
      HWY_UNROLL(2)
      for (size_t r = 0; r < kRows; ++r) acc[r][o + i] = sums[r][i];
    }
  }
}

template <class C, class Weights, size_t kGroupBytes>
HWY_INLINE void AddAllRows(const uint8_t* weights, size_t row_bytes, const Tile& tile,
                           const RowView* views, size_t n_rows, size_t n_blocks, int offset,
                           size_t n_outputs, float (*acc)[kTileOutputs]) {
  const size_t n_groups = n_blocks * kBlock / C::kGroup;
  size_t r = 0;
  for (; r + 2 <= n_rows; r += 2) {
    AddPairedRows<C, Weights, kGroupBytes, 2>(weights, row_bytes, tile, views + r, n_groups, offset,
                                              n_outputs, acc + r);
  }
  if (r < n_rows) {
    AddPairedRows<C, Weights, kGroupBytes, 1>(weights, row_bytes, tile, views + r, n_groups, offset,
                                              n_outputs, acc + r);
  }
}

// What MatMulQuantized does with one tile: unpacks it if the type is not read from its blocks, and
// adds its products with every row.
template <TensorType kType>
HWY_INLINE void AddTile(const uint8_t* weights, size_t row_bytes, size_t n_outputs, size_t n_blocks,
                        const RowView* views, size_t n_rows, Tile& tile,
                        float (*acc)[kTileOutputs]) {
  using Shape = Block<kType>;
  using C = CoreOf<Shape>;
  if constexpr (kType == TensorType::kQ8_0 || kType == TensorType::kQ4_0) {
    using Weights = std::conditional_t<kType == TensorType::kQ8_0, ByteWeights, NibbleWeights>;
    ForEachBlock<Shape, true>(weights, row_bytes, n_outputs, n_blocks,
                              [&tile](const uint8_t* block, size_t o, size_t b) {
                                hn::Store(LoadHalf(block), DF(), tile.scale[b] + o);
                              });
    AddAllRows<C, Weights, Shape::kBytes>(weights + sizeof(uint16_t), row_bytes, tile, views,
                                          n_rows, n_blocks, Shape::kOffset, n_outputs, acc);
  } else {
    UnpackTile<Shape>(weights, row_bytes, n_outputs, n_blocks, tile);
    ExpandScales<Shape>(n_blocks, tile);
    AddAllRows<C, ByteWeights, Shape::kGroup>(tile.q[0], kTileColumns, tile, views, n_rows,
                                              n_blocks, Shape::kOffset, n_outputs, acc);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // THIMBLE_KERNELS_SMLAD
#endif  // toggle
