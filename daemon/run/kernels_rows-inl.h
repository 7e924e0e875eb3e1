// What products of quantized weights are made of besides the integer sums: prepared rows, a tile's
// scales multiplied out, and the float operations of a group. Memory: 256 bytes of stack.
#if defined(THIMBLE_KERNELS_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_ROWS_INL_H_
#undef THIMBLE_KERNELS_ROWS_INL_H_
#else
#define THIMBLE_KERNELS_ROWS_INL_H_
#endif

#include "daemon/run/kernels_blocks-inl.h"
#include "daemon/run/kernels_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

// A prepared row from some column on.
struct RowView {
  const int8_t* q;
  const float* scale;  // by block of 32
  const int16_t* sum;  // by 16 values
};

HWY_INLINE RowView ViewRow(const uint8_t* prepared, size_t columns, size_t column) {
  const uint8_t* scale = prepared + columns;
  const uint8_t* sum = scale + columns / kBlock * sizeof(float);
  return {reinterpret_cast<const int8_t*>(prepared) + column,
          reinterpret_cast<const float*>(scale) + column / kBlock,
          reinterpret_cast<const int16_t*>(sum) + column / 16};
}

// d, m and the K types' small integers to scale and min, by group.
template <class Shape>
HWY_INLINE void ExpandScales(size_t n_blocks, Tile& tile) {
  const DF df;
  const DI di;
  const size_t lanes = hn::Lanes(df);
  if constexpr (Shape::kElements == kBlock) {
    for (size_t b = 0; b < n_blocks; ++b) {
      for (size_t o = 0; o < kTileOutputs; o += lanes) {
        hn::Store(LoadHalf(tile.d[b] + o), df, tile.scale[b] + o);
        if constexpr (Shape::kHasMin) hn::Store(LoadHalf(tile.m[b] + o), df, tile.min[b] + o);
      }
    }
  } else if constexpr (!kVectors) {
    // The same products without the transposition, which serves vectors of outputs.
    for (size_t o = 0; o < kTileOutputs; ++o) {
      const float d = hn::GetLane(LoadHalf(tile.d[0] + o));
      for (size_t g = 0; g < kTileColumns / Shape::kGroup; ++g) {
        tile.scale[g][o] = d * static_cast<float>(tile.sub_scale[o][g]);
      }
      if constexpr (Shape::kHasMin) {
        const float m = hn::GetLane(LoadHalf(tile.m[0] + o));
        for (size_t g = 0; g < kTileColumns / Shape::kGroup; ++g) {
          tile.min[g][o] = -(m * static_cast<float>(tile.sub_min[o][g]));
        }
      }
    }
  } else {
    constexpr size_t kGroups = kTileColumns / Shape::kGroup;
    alignas(64) uint8_t by_group[kMaxGroups][kTileOutputs];
    TransposeBytes<kGroups>(reinterpret_cast<const uint8_t(*)[16]>(tile.sub_scale), by_group);
    for (size_t g = 0; g < kGroups; ++g) {
      for (size_t o = 0; o < kTileOutputs; o += lanes) {
        const hn::Rebind<int8_t, DF> d8;
        const auto small = hn::LoadU(d8, reinterpret_cast<const int8_t*>(by_group[g]) + o);
        const VF scale =
            hn::Mul(LoadHalf(tile.d[0] + o), hn::ConvertTo(df, hn::PromoteTo(di, small)));
        hn::Store(scale, df, tile.scale[g] + o);
      }
    }
    if constexpr (Shape::kHasMin) {
      TransposeBytes<kGroups>(tile.sub_min, by_group);
      for (size_t g = 0; g < kGroups; ++g) {
        for (size_t o = 0; o < kTileOutputs; o += lanes) {
          const hn::Rebind<uint8_t, DF> d8;
          const auto small = hn::LoadU(d8, by_group[g] + o);
          const VF min =
              hn::Mul(LoadHalf(tile.m[0] + o), hn::ConvertTo(df, hn::PromoteTo(di, small)));
          hn::Store(hn::Neg(min), df, tile.min[g] + o);
        }
      }
    }
  }
}

// What the sums need to know of a type. Several types share one core (and its code): the offset is
// a number at run time.
// kPairSums: so many of PairSums' sums may be added up in 16 bits; 1 where there are none.
template <size_t kGroupV, bool kHasMinV, bool kSignedV, size_t kPairSumsV>
struct Core {
  static constexpr size_t kGroup = kGroupV;
  static constexpr bool kHasMin = kHasMinV;
  static constexpr bool kSigned = kSignedV;
  static constexpr size_t kPairSums = kPairSumsV;
};
template <class Shape>
constexpr size_t PairSumsOf() {
  size_t sums = 1;
  while (THIMBLE_KERNELS_256 && 2 * sums <= Shape::kGroup / 4 &&
         2 * sums * 2 * Shape::kMostQ * 127 <= 32767) {
    sums *= 2;
  }
  return sums;
}
// With VNNI signed bytes are stored unsigned and multiplied alike.
template <class Shape>
using CoreOf = Core<Shape::kGroup, Shape::kHasMin, Shape::kSigned && !kVnni, PairSumsOf<Shape>()>;

// The float operations of one group of one row: the one order of sums. min: of types that have one.
template <class C>
HWY_INLINE VF AddGroup(VF acc, VI isum, VF scale, VF min, float x_scale, int x_sum) {
  const DF df;
  const VF s = hn::Mul(scale, hn::Set(df, x_scale));
  acc = hn::MulAdd(hn::ConvertTo(df, isum), s, acc);
  if constexpr (C::kHasMin) {
    const float weighted = x_scale * static_cast<float>(x_sum);
    acc = hn::MulAdd(min, hn::Set(df, weighted), acc);
  }
  return acc;
}

template <class C>
HWY_INLINE VF MinOf(const float* min) {
  if constexpr (C::kHasMin) {
    return hn::Load(DF(), min);
  } else {
    return hn::Zero(DF());
  }
}

template <class C>
HWY_INLINE int GroupSum(const int16_t* sum, size_t g) {
  if constexpr (C::kGroup == 16) {
    return sum[g];
  } else {
    return sum[2 * g] + sum[2 * g + 1];
  }
}

// One row: its sums, by group and output, through the float operations.
template <class C>
HWY_INLINE void AddSums(const Tile& tile, const RowView& x, size_t n_blocks, int offset,
                        const int32_t (*isums)[kTileOutputs], float* acc) {
  const DF df;
  const DI di;
  const size_t lanes = hn::Lanes(df);
  const size_t n_groups = n_blocks * kBlock / C::kGroup;
  for (size_t o = 0; o < kTileOutputs; o += lanes) {
    VF sum = hn::Load(df, acc + o);
    for (size_t g = 0; g < n_groups; ++g) {
      const int x_sum = GroupSum<C>(x.sum, g);
      const VI isum = hn::Sub(hn::Load(di, isums[g] + o), hn::Set(di, offset * x_sum));
      sum = AddGroup<C>(sum, isum, hn::Load(df, tile.scale[g] + o), MinOf<C>(tile.min[g] + o),
                        x.scale[g * C::kGroup / kBlock], x_sum);
    }
    hn::Store(sum, df, acc + o);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
