// Products of quantized weights with 8-bit activations. A tile of 16 outputs by 256 columns is
// unpacked once and used for every row. The sums over a group of 16 or 32 values are exact
// integers, so they may be formed in any way; what fixes the result is the order of the float
// operations, which is the same for every number of rows and outputs: group by group,
//   acc = acc + float(isum) * (weight_scale * x_scale), then, for types with minimums,
//   acc = acc + weight_min * (x_scale * x_sum).
// Memory: a Tile and 64 rows of 16 sums on the stack, 20 KiB.
#include <cassert>

#if defined(THIMBLE_KERNELS_QUANT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_QUANT_INL_H_
#undef THIMBLE_KERNELS_QUANT_INL_H_
#else
#define THIMBLE_KERNELS_QUANT_INL_H_
#endif

#include "daemon/run/kernels_armv6-inl.h"
#include "daemon/run/kernels_blocks-inl.h"
#include "daemon/run/kernels_dot-inl.h"
#include "daemon/run/kernels_rows-inl.h"
#include "daemon/run/kernels_stream_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

inline constexpr size_t kRowBatch = 64;
// From this many rows on, transposing the tile costs less than reducing each row's sums.
inline constexpr size_t kPackRows = 3;
// Of blocks of 32, so many rows at once go straight from the blocks, as there are registers for
// their sums; from kTileRows rows on a tile that serves all of them costs less.
inline constexpr size_t kStreamRows = kVnni ? 8 : 1;
inline constexpr size_t kTileRows = kVnni ? 32 : kPackRows;

HWY_NOINLINE inline void PrepareQ8(const float* x, size_t columns, void* out) {
  const DF df;
  const DI di;
  const hn::Rebind<int8_t, DF> d8;
  const size_t lanes = hn::Lanes(df);  // 1, 4, 8 or 16
  auto* q = static_cast<int8_t*>(out);
  auto* scales = reinterpret_cast<float*>(q + columns);
  auto* sums = reinterpret_cast<int16_t*>(q + columns + columns / kBlock * sizeof(float));
  for (size_t b = 0; b < columns / kBlock; ++b) {
    const float* from = x + b * kBlock;
    VF most = hn::Zero(df);
    for (size_t i = 0; i < kBlock; i += lanes) {
      most = hn::Max(most, hn::Abs(hn::LoadU(df, from + i)));
    }
    const float largest = hn::GetLane(hn::MaxOfLanes(df, most));
    // Below 1e-30 the inverse would overflow: such a block is zero for every purpose.
    const bool zero = !(largest > 1e-30F);
    scales[b] = zero ? 0.0F : largest / 127.0F;
    const VF inverse = hn::Set(df, zero ? 0.0F : 127.0F / largest);
    for (size_t half = 0; half < 2; ++half) {
      VI sum = hn::Zero(di);
      for (size_t i = half * 16; i < half * 16 + 16; i += lanes) {
        const VI rounded = hn::NearestInt(hn::Mul(hn::LoadU(df, from + i), inverse));
        sum = hn::Add(sum, rounded);
        hn::StoreU(hn::DemoteTo(d8, rounded), d8, q + b * kBlock + i);
      }
      sums[b * 2 + half] = static_cast<int16_t>(hn::GetLane(hn::SumOfLanes(di, sum)));
    }
  }
}

// One row by the tile as unpacked: the sums of each output are reduced across lanes.
template <class C>
HWY_NOINLINE void AddRow(const Tile& tile, const RowView& x, size_t n_blocks, int offset,
                         float* acc) {
  alignas(64) int32_t isums[kMaxGroups][kTileOutputs];
  GroupSums<C::kGroup, C::kSigned>(tile, x.q, n_blocks, isums);
  AddSums<C>(tile, x, n_blocks, offset, isums, acc);
}

#if THIMBLE_KERNELS_256
// tile.packed and the scales straight from the blocks of 16 outputs.
template <TensorType kType>
HWY_INLINE void PackBlocks(const uint8_t* weights, size_t row_bytes, size_t n_blocks, Tile& tile) {
  using Shape = Block<kType>;
  for (size_t o = 0; o < kTileOutputs; ++o) {
    const uint8_t* row = weights + o * row_bytes;
    PrefetchNextTile<Shape>(row, row_bytes);
    for (size_t b = 0; b < n_blocks; ++b) {
      tile.d[b][o] = LoadU16(row + b * Shape::kBytes);
      if constexpr (Shape::kHasMin) tile.m[b][o] = LoadU16(row + b * Shape::kBytes + 2);
    }
  }
  for (size_t b = 0; b < n_blocks; ++b) {
    Stream<kType>::Pack(weights + b * Shape::kBytes, row_bytes, tile.packed + b * kBlock / 4);
  }
}
#endif

#if HWY_TARGET != HWY_SCALAR
// kRows rows by the packed tile: each lane is an output, so nothing is reduced.
template <class C, size_t kRows>
HWY_NOINLINE void AddRows(const Tile& tile, const RowView* x, size_t n_blocks, int offset,
                          float (*acc)[kTileOutputs]) {
  const DF df;
  const DI di;
  const size_t lanes = hn::Lanes(df);
  const size_t n_groups = n_blocks * kBlock / C::kGroup;
  for (size_t o = 0; o < kTileOutputs; o += lanes) {
    VF sum[kRows];
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) sum[r] = hn::Load(df, acc[r] + o);
    for (size_t g = 0; g < n_groups; ++g) {
      VI isum[kRows];
      int x_sum[kRows];
      HWY_UNROLL(8)
      for (size_t r = 0; r < kRows; ++r) {
        x_sum[r] = GroupSum<C>(x[r].sum, g);
        isum[r] = hn::Set(di, -offset * x_sum[r]);
      }
#if THIMBLE_KERNELS_256
      HWY_UNROLL(8)
      for (size_t part = 0; part < C::kGroup / 4; part += C::kPairSums) {
        __m256i pairs[kRows];
        HWY_UNROLL(8)
        for (size_t i = part; i < part + C::kPairSums; ++i) {
          const VBytes w = hn::LoadU(DBytes(), tile.packed[g * C::kGroup / 4 + i][o]);
          HWY_UNROLL(8)
          for (size_t r = 0; r < kRows; ++r) {
            const __m256i more =
                PairSums<C::kSigned>(w, BroadcastQuad(x[r].q + g * C::kGroup + 4 * i));
            pairs[r] = i == part ? more : _mm256_add_epi16(pairs[r], more);
            KeepHere(pairs[r]);
          }
        }
        HWY_UNROLL(8)
        for (size_t r = 0; r < kRows; ++r) {
          isum[r] = AddPairs(isum[r], pairs[r]);
          KeepHere(isum[r].raw);
        }
      }
#else
      HWY_UNROLL(8)
      for (size_t k = g * C::kGroup; k < (g + 1) * C::kGroup; k += 4) {
        const VBytes w = hn::LoadU(DBytes(), tile.packed[k / 4][o]);
        HWY_UNROLL(8)
        for (size_t r = 0; r < kRows; ++r) {
          isum[r] = DotQuads<C::kSigned>(isum[r], w, BroadcastQuad(x[r].q + k));
        }
      }
#endif
      HWY_UNROLL(8)
      for (size_t r = 0; r < kRows; ++r) {
        sum[r] =
            AddGroup<C>(sum[r], isum[r], hn::Load(df, tile.scale[g] + o), MinOf<C>(tile.min[g] + o),
                        x[r].scale[g * C::kGroup / kBlock], x_sum[r]);
      }
    }
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) hn::Store(sum[r], df, acc[r] + o);
  }
}

template <class C>
HWY_INLINE void AddPackedRows(const Tile& tile, const RowView* x, size_t n_rows, size_t n_blocks,
                              int offset, float (*acc)[kTileOutputs]) {
  constexpr size_t kMany = HWY_TARGET <= HWY_AVX3 ? 8 : 4;  // accumulators: 32 registers, or 16
  size_t r = 0;
  for (; r + kMany <= n_rows; r += kMany) AddRows<C, kMany>(tile, x + r, n_blocks, offset, acc + r);
  if (r + 4 <= n_rows) {
    AddRows<C, 4>(tile, x + r, n_blocks, offset, acc + r);
    r += 4;
  }
  if (r + 2 <= n_rows) {
    AddRows<C, 2>(tile, x + r, n_blocks, offset, acc + r);
    r += 2;
  }
  for (; r < n_rows; ++r) AddRows<C, 1>(tile, x + r, n_blocks, offset, acc + r);
}
#endif

template <TensorType kType>
HWY_NOINLINE void MatMulQuantized(const uint8_t* w, size_t n_outputs, size_t columns,
                                  const uint8_t* x, size_t x_stride_bytes, size_t n_rows, float* y,
                                  size_t y_stride, [[maybe_unused]] const void* next) {
  using Shape = Block<kType>;
  const size_t row_bytes = columns / Shape::kElements * Shape::kBytes;
  Tile tile;
  // Outputs missing from the last tile are computed like the others, from zeros, and not used.
  if (n_outputs % kTileOutputs != 0) std::memset(&tile, 0, sizeof(tile));
  alignas(64) float acc[kRowBatch][kTileOutputs];
  RowView views[kRowBatch];
#if THIMBLE_KERNELS_STREAM
  const Ahead ahead(w, n_outputs * row_bytes, kTileOutputs * row_bytes, next);
#endif
  for (size_t o = 0; o < n_outputs; o += kTileOutputs) {
    const size_t outputs = std::min(kTileOutputs, n_outputs - o);
#if THIMBLE_KERNELS_STREAM
    if constexpr (Stream<kType>::kByBlock) {
      if (n_rows < kTileRows && outputs == kTileOutputs) {
        for (size_t r = 0; r < n_rows; r += kStreamRows) {
          const size_t rows = std::min(kStreamRows, n_rows - r);
          for (size_t i = 0; i < rows; ++i) {
            views[i] = ViewRow(x + (r + i) * x_stride_bytes, columns, 0);
          }
          StreamUpTo<kType, kStreamRows>(w + o * row_bytes, row_bytes, ahead.Of(o * row_bytes),
                                         views, rows, columns / kBlock, y + r * y_stride + o,
                                         y_stride);
        }
        continue;
      }
    }
#endif
    for (size_t row = 0; row < n_rows; row += kRowBatch) {
      const size_t rows = std::min(kRowBatch, n_rows - row);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t i = 0; i < kTileOutputs; i += hn::Lanes(DF())) {
          hn::Store(hn::Zero(DF()), DF(), acc[r] + i);
        }
      }
      for (size_t column = 0; column < columns; column += kTileColumns) {
        const size_t n_blocks = std::min(kTileColumns, columns - column) / kBlock;
        const uint8_t* from = w + o * row_bytes + column / Shape::kElements * Shape::kBytes;
#if THIMBLE_KERNELS_SMLAD
        for (size_t r = 0; r < rows; ++r) {
          views[r] = ViewRow(x + (row + r) * x_stride_bytes, columns, column);
        }
        AddTile<kType>(from, row_bytes, outputs, n_blocks, views, rows, tile, acc);
        continue;
#endif
#if THIMBLE_KERNELS_512
        if constexpr (Stream<kType>::kExists && !Stream<kType>::kByBlock) {
          if (rows == 1 && outputs == kTileOutputs) {
            const RowView view = ViewRow(x + row * x_stride_bytes, columns, column);
            const size_t at = kTileOutputs * (column / Shape::kElements * Shape::kBytes);
            StreamRow<kType>(from, row_bytes, ahead.Of(o * row_bytes) + at, view, n_blocks, tile,
                             acc[0]);
            continue;
          }
        }
#endif
        for (size_t r = 0; r < rows; ++r) {
          views[r] = ViewRow(x + (row + r) * x_stride_bytes, columns, column);
        }
#if THIMBLE_KERNELS_256
        if constexpr (Stream<kType>::kByBlock) {
          if (rows >= kPackRows && outputs == kTileOutputs) {
            PackBlocks<kType>(from, row_bytes, n_blocks, tile);
            ExpandScales<Shape>(n_blocks, tile);
            AddPackedRows<CoreOf<Shape>>(tile, views, rows, n_blocks, Shape::kOffset, acc);
            continue;
          }
        }
#endif
        UnpackTile<Shape>(from, row_bytes, outputs, n_blocks, tile);
        ExpandScales<Shape>(n_blocks, tile);
#if HWY_TARGET != HWY_SCALAR
        if (rows >= kPackRows) {
          PackTile(n_blocks, tile);
          AddPackedRows<CoreOf<Shape>>(tile, views, rows, n_blocks, Shape::kOffset, acc);
          continue;
        }
#endif
        for (size_t r = 0; r < rows; ++r)
          AddRow<CoreOf<Shape>>(tile, views[r], n_blocks, Shape::kOffset, acc[r]);
      }
      for (size_t r = 0; r < rows; ++r) {
        std::memcpy(y + (row + r) * y_stride + o, acc[r], outputs * sizeof(float));
      }
    }
  }
}

// One row as floats. columns: a multiple of the type's block.
template <TensorType kType>
HWY_NOINLINE void DequantizeTiles(const uint8_t* row, size_t columns, float* out) {
  using Shape = Block<kType>;
  Tile tile;
  std::memset(&tile, 0, sizeof(tile));
  for (size_t column = 0; column < columns; column += kTileColumns) {
    const size_t n_blocks = std::min(kTileColumns, columns - column) / kBlock;
    UnpackTile<Shape>(row + column / Shape::kElements * Shape::kBytes, 0, 1, n_blocks, tile);
    ExpandScales<Shape>(n_blocks, tile);
    for (size_t i = 0; i < n_blocks * kBlock; ++i) {
      const size_t g = i / Shape::kGroup;
      // On targets without VNNI a signed byte has no offset and is stored as it is.
      const int stored =
          Shape::kSigned && !kVnni ? static_cast<int8_t>(tile.q[0][i]) : tile.q[0][i];
      float value = tile.scale[g][0] * static_cast<float>(stored - Shape::kOffset);
      if constexpr (Shape::kHasMin) value += tile.min[g][0];
      out[column + i] = value;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
