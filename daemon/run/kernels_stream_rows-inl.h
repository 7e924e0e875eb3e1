// Rows by 16 outputs whose values go straight from the blocks to the products: the loops around
// kernels_stream-inl.h. Memory: 256 bytes of scales, and for one row of the types of 256 a tile.
#include <type_traits>

#if defined(THIMBLE_KERNELS_STREAM_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_STREAM_ROWS_INL_H_
#undef THIMBLE_KERNELS_STREAM_ROWS_INL_H_
#else
#define THIMBLE_KERNELS_STREAM_ROWS_INL_H_
#endif

#include "daemon/run/kernels_rows-inl.h"
#include "daemon/run/kernels_stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

#if THIMBLE_KERNELS_512
// One row by 16 outputs whose values go from the blocks to the products without a stop in the tile.
// ahead: the bytes that are wanted next, of as many outputs and columns.
template <TensorType kType>
HWY_INLINE void StreamRow(const uint8_t* weights, size_t row_bytes, uintptr_t ahead,
                          const RowView& x, size_t n_blocks, Tile& tile, float* acc) {
  using Shape = Block<kType>;
  // The small integers first: their loads and stores overlap the products.
  ForEachBlock<Shape, false>(weights, row_bytes, kTileOutputs, n_blocks,
                             [&tile](const uint8_t* block, size_t o, size_t b)
                                 HWY_ATTR { Shape::Scales(block, o, b, tile); });
  alignas(64) int32_t isums[kMaxGroups][kTileOutputs];
  GroupSumsOf<Shape::kGroup, Shape::kSigned>(
      [=](size_t o, size_t column) HWY_ATTR {
        if (o % 8 == 0) PrefetchPart<Shape>(ahead, column / kBlock + o / 8);
        return VBytes{Stream<kType>::Load64(weights + o * row_bytes, column)};
      },
      x.q, n_blocks, isums);
  ExpandScales<Shape>(n_blocks, tile);
  AddSums<CoreOf<Shape>>(tile, x, n_blocks, Shape::kOffset, isums, acc);
}

#endif

#if THIMBLE_KERNELS_STREAM
// float(i-th scale) and minimum of Lanes(DF()) outputs, whose halves lie in pairs.
HWY_INLINE void LoadPairs(const uint32_t* from, VF* scale, VF* min) {
#if THIMBLE_KERNELS_512
  const __m512i both = _mm512_load_si512(from);
  *scale = VF{_mm512_cvtph_ps(_mm512_cvtepi32_epi16(both))};
  *min = VF{_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)))};
#else
  const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  const __m256i low = _mm256_and_si256(both, _mm256_set1_epi32(0xFFFF));
  // Scales, then minimums, in either half; put together by the permutation.
  const __m256i halves = _mm256_packus_epi32(low, _mm256_srli_epi32(both, 16));
  const __m256i sorted = _mm256_permute4x64_epi64(halves, 0xD8);
  *scale = VF{_mm256_cvtph_ps(_mm256_castsi256_si128(sorted))};
  *min = VF{_mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1))};
#endif
}

// Scales and minimums of 16 outputs by blocks of 32, copied together two blocks ahead: loads and
// stores, which overlap the products.
template <class Shape>
class ScalesAhead {
 public:
  HWY_INLINE ScalesAhead(const uint8_t* weights, size_t row_bytes, size_t n_blocks)
      : weights_(weights), row_bytes_(row_bytes), n_blocks_(n_blocks) {
    Copy(0);
    Copy(1);
  }
  HWY_INLINE void Copy(size_t b) {
    if (b >= n_blocks_) return;
    const uint8_t* block = weights_ + b * Shape::kBytes;
    HWY_UNROLL(16)
    for (size_t o = 0; o < kTileOutputs; ++o) {
      Halves both;
      std::memcpy(&both, block + o * row_bytes_, sizeof(Halves));
      // Volatile: else the compiler gathers them in vectors, with as many shuffles.
      *static_cast<volatile Halves*>(&halves_[b % kCopies][o]) = both;
    }
  }
  // Of block b and outputs from o on.
  HWY_INLINE void Load(size_t b, size_t o, VF* scale, VF* min) const {
    const Halves* from = halves_[b % kCopies] + o;
    if constexpr (Shape::kHasMin) {
      LoadPairs(from, scale, min);
    } else {
      *scale = LoadHalf(from);
      *min = hn::Zero(DF());
    }
  }

 private:
  using Halves = std::conditional_t<Shape::kHasMin, uint32_t, uint16_t>;
  static constexpr size_t kCopies = 4;
  alignas(64) Halves halves_[kCopies][kTileOutputs];
  const uint8_t* const weights_;
  const size_t row_bytes_;
  const size_t n_blocks_;
};

// One row by 16 outputs, all columns at once, of blocks of 32, which need no tile at all. ahead:
// the bytes that are wanted next, of as many outputs and columns.
template <TensorType kType>
HWY_INLINE void StreamBlocksOfRow(const uint8_t* weights, size_t row_bytes, uintptr_t ahead,
                                  const RowView& x, size_t n_blocks, float* out) {
  using Shape = Block<kType>;
  using C = CoreOf<Shape>;
  const DF df;
  constexpr size_t kLanes = hn::MaxLanes(DF());
  constexpr size_t kVectors = kTileOutputs / kLanes;
  ScalesAhead<Shape> scales(weights, row_bytes, n_blocks);
  VF sum[kVectors];
  HWY_UNROLL(2)
  for (size_t v = 0; v < kVectors; ++v) sum[v] = hn::Zero(df);
  for (size_t b = 0; b < n_blocks; ++b) {
    PrefetchPart<Shape>(ahead, b);
    scales.Copy(b + 2);
    const int x_sum = GroupSum<C>(x.sum, b);
    const uint8_t* block = weights + b * Shape::kBytes;
    HWY_UNROLL(2)
    for (size_t v = 0; v < kVectors; ++v) {
      const VI dots =
          Stream<kType>::Dots(block + v * kLanes * row_bytes, row_bytes, x.q + b * kBlock);
      const VI isum = hn::Sub(dots, hn::Set(DI(), Shape::kOffset * x_sum));
      VF scale;
      VF min;
      scales.Load(b, v * kLanes, &scale, &min);
      sum[v] = AddGroup<C>(sum[v], isum, scale, min, x.scale[b], x_sum);
    }
  }
  HWY_UNROLL(2)
  for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[v], df, out + v * kLanes);
}
#endif

#if THIMBLE_KERNELS_512
// The same of kRows rows, each lane an output: a block's values stay in eight registers while all
// rows use them. out: y_stride between rows.
template <TensorType kType, size_t kRows>
HWY_NOINLINE void StreamBlocksOfRows(const uint8_t* weights, size_t row_bytes, uintptr_t ahead,
                                     const RowView* x, size_t n_blocks, float* out,
                                     size_t y_stride) {
  using Shape = Block<kType>;
  using C = CoreOf<Shape>;
  const DF df;
  const DI di;
  ScalesAhead<Shape> scales(weights, row_bytes, n_blocks);
  VF sum[kRows];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) sum[r] = hn::Zero(df);
  for (size_t b = 0; b < n_blocks; ++b) {
    PrefetchPart<Shape>(ahead, b);
    scales.Copy(b + 2);
    VI quads[kBlock / 4];
    Stream<kType>::Quads(weights + b * Shape::kBytes, row_bytes, quads);
    VI isum[kRows];
    int x_sum[kRows];
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      x_sum[r] = GroupSum<C>(x[r].sum, b);
      isum[r] = hn::Set(di, -Shape::kOffset * x_sum[r]);
    }
    HWY_UNROLL(8)
    for (size_t j = 0; j < kBlock / 4; ++j) {
      HWY_UNROLL(8)
      for (size_t r = 0; r < kRows; ++r) {
        isum[r] = DotQuads<C::kSigned>(isum[r], VBytes{quads[j].raw},
                                       BroadcastQuad(x[r].q + b * kBlock + 4 * j));
      }
    }
    VF scale;
    VF min;
    scales.Load(b, 0, &scale, &min);
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      sum[r] = AddGroup<C>(sum[r], isum[r], scale, min, x[r].scale[b], x_sum[r]);
    }
  }
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) hn::StoreU(sum[r], df, out + r * y_stride);
}
#endif

#if THIMBLE_KERNELS_STREAM
// n_rows in [1, kMost].
template <TensorType kType, size_t kMost>
HWY_INLINE void StreamUpTo(const uint8_t* weights, size_t row_bytes, uintptr_t ahead,
                           const RowView* x, size_t n_rows, size_t n_blocks, float* out,
                           size_t y_stride) {
  if constexpr (kMost == 1) {
    StreamBlocksOfRow<kType>(weights, row_bytes, ahead, x[0], n_blocks, out);
  } else if (n_rows == kMost) {
    StreamBlocksOfRows<kType, kMost>(weights, row_bytes, ahead, x, n_blocks, out, y_stride);
  } else {
    StreamUpTo<kType, kMost - 1>(weights, row_bytes, ahead, x, n_rows, n_blocks, out, y_stride);
  }
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
