// Attention over one KV block, with a running softmax: of up to four queries at once, for which
// keys and values become floats once. A query's sums are formed in the same order however many
// there are. Memory: 512 bytes of stack for the scores.
#include <algorithm>
#include <cassert>

#if defined(THIMBLE_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_ATTENTION_INL_H_
#undef THIMBLE_KERNELS_ATTENTION_INL_H_
#else
#define THIMBLE_KERNELS_ATTENTION_INL_H_
#endif

#include "daemon/run/kernels_base-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

inline constexpr size_t kBlockTokens = 32;
inline constexpr size_t kLineHalves = 32;  // of a line of the processor's caches

HWY_INLINE float HalfScalar(uint16_t half) { return hn::GetLane(SetHalf(half)); }

// acc[d] = acc[d] * factor for d < n; factor is 1 for all blocks that do not raise the maximum.
HWY_INLINE void Rescale(float* acc, size_t n, float factor) {
  const VF vfactor = hn::Set(DF(), factor);
  Map2(acc, acc, n, acc, [vfactor](VF a, VF) HWY_ATTR { return hn::Mul(a, vfactor); });
}

// Of what a register of halves becomes as floats, so many queries make use at once.
inline constexpr size_t kMostQueries = 4;

// to[i] = the sum of lane sums[i], for i < 4.
HWY_INLINE void StoreSums(const VF* sums, float* to) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t i = 0; i < 4; ++i) to[i] = hn::GetLane(sums[i]);
#else
  const DF df;
  const auto blocks = SumFour(sums[0], sums[1], sums[2], sums[3]);
  if constexpr (hn::MaxLanes(DF()) == 16) {
    const hn::Half<DF> d8;
    const hn::Half<decltype(d8)> d4;
    const auto two = hn::Add(hn::LowerHalf(d8, blocks), hn::UpperHalf(d8, blocks));
    hn::StoreU(hn::Add(hn::LowerHalf(d4, two), hn::UpperHalf(d4, two)), d4, to);
  } else if constexpr (hn::MaxLanes(DF()) == 8) {
    const hn::Half<DF> d4;
    hn::StoreU(hn::Add(hn::LowerHalf(d4, blocks), hn::UpperHalf(d4, blocks)), d4, to);
  } else {
    hn::StoreU(blocks, df, to);
  }
#endif
}

// scores[k][t] = q_k . keys[t]; q_k is q + k * stride. Values past the last whole vector are added
// in scalar. The values that will be wanted next are fetched meanwhile.
template <size_t kQueries>
HWY_INLINE void Scores(const float* q, size_t stride, const uint16_t* keys, const uint16_t* values,
                       size_t n_tokens, size_t head_dim, float (*scores)[kBlockTokens]) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  const size_t whole = head_dim / lanes * lanes;
  for (size_t t = 0; t < n_tokens; t += 4) {
    // Four tokens at a time; past the end the last one is repeated.
    const uint16_t* rows[4] = {keys + t * head_dim};
    HWY_UNROLL(4)
    for (size_t i = 1; i < 4; ++i) rows[i] = rows[i - 1] + (t + i < n_tokens ? head_dim : 0);
    for (size_t i = 0; i < 4 * head_dim; i += kLineHalves) {
      hwy::Prefetch(values + t * head_dim + i);
    }
    VF sums[kQueries][4];
    HWY_UNROLL(4)
    for (size_t k = 0; k < kQueries; ++k) {
      HWY_UNROLL(4)
      for (size_t i = 0; i < 4; ++i) sums[k][i] = hn::Zero(df);
    }
    for (size_t d = 0; d < whole; d += lanes) {
      VF key[4];
      HWY_UNROLL(4)
      for (size_t i = 0; i < 4; ++i) key[i] = LoadHalf(rows[i] + d);
      HWY_UNROLL(4)
      for (size_t k = 0; k < kQueries; ++k) {
        const VF vq = hn::LoadU(df, q + k * stride + d);
        HWY_UNROLL(4)
        for (size_t i = 0; i < 4; ++i) sums[k][i] = hn::MulAdd(key[i], vq, sums[k][i]);
      }
    }
    HWY_UNROLL(4)
    for (size_t k = 0; k < kQueries; ++k) StoreSums(sums[k], scores[k] + t);
    for (size_t d = whole; d < head_dim; ++d) {
      for (size_t i = 0; i < 4; ++i) {
        const float key = HalfScalar(rows[i][d]);
        for (size_t k = 0; k < kQueries; ++k) scores[k][t + i] += key * q[k * stride + d];
      }
    }
  }
}

// Scores to weights exp(scale * score - maximum), by which the state and the sums so far go on.
HWY_INLINE void Weigh(float* p, size_t n_tokens, size_t head_dim, float scale,
                      AttentionState* state, float* acc) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  const VF vscale = hn::Set(df, scale);
  // Tokens that are not there weigh nothing: exp(-inf) is zero.
  for (size_t t = n_tokens; t < kBlockTokens; ++t) p[t] = -3.0e38F;
  VF most = hn::Set(df, state->max);
  for (size_t t = 0; t < kBlockTokens; t += lanes) {
    most = hn::Max(hn::Mul(hn::Load(df, p + t), vscale), most);
  }
  const float max = hn::GetLane(hn::MaxOfLanes(df, most));
  if (max > state->max) {
    // exp(-3e38 - max) is zero for the first block.
    const float factor = hn::GetLane(Exp(hn::Set(df, state->max - max)));
    state->sum *= factor;
    Rescale(acc, head_dim, factor);
    state->max = max;
  }
  const VF vmax = hn::Set(df, max);
  VF vsum = hn::Zero(df);
  for (size_t t = 0; t < kBlockTokens; t += lanes) {
    const VF weight = Exp(hn::Sub(hn::Mul(hn::Load(df, p + t), vscale), vmax));
    hn::Store(weight, df, p + t);
    vsum = hn::Add(vsum, weight);
  }
  state->sum += hn::GetLane(hn::SumOfLanes(df, vsum));
}

// acc_k[d] += the sum over t of p[k][t] * values[t][d], for kCount vectors from there on; acc_k is
// acc + k * stride.
template <size_t kQueries, size_t kCount>
HWY_INLINE void AddValues(const uint16_t* values, size_t n_tokens, size_t head_dim,
                          const float (*p)[kBlockTokens], float* acc, size_t stride) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  VF sums[kQueries][kCount];
  HWY_UNROLL(4)
  for (size_t k = 0; k < kQueries; ++k) {
    HWY_UNROLL(4)
    for (size_t i = 0; i < kCount; ++i) sums[k][i] = hn::LoadU(df, acc + k * stride + i * lanes);
  }
  for (size_t t = 0; t < n_tokens; ++t) {
    VF value[kCount];
    HWY_UNROLL(4)
    for (size_t i = 0; i < kCount; ++i) value[i] = LoadHalf(values + t * head_dim + i * lanes);
    HWY_UNROLL(4)
    for (size_t k = 0; k < kQueries; ++k) {
      const VF weight = hn::Set(df, p[k][t]);
      HWY_UNROLL(4)
      for (size_t i = 0; i < kCount; ++i) sums[k][i] = hn::MulAdd(value[i], weight, sums[k][i]);
    }
  }
  HWY_UNROLL(4)
  for (size_t k = 0; k < kQueries; ++k) {
    HWY_UNROLL(4)
    for (size_t i = 0; i < kCount; ++i) hn::StoreU(sums[k][i], df, acc + k * stride + i * lanes);
  }
}

// Queries [first, first + kQueries).
template <size_t kQueries>
HWY_NOINLINE void AttendQueries(const AttentionQueries& a, size_t first, const uint16_t* keys,
                                const uint16_t* values, size_t n_tokens, size_t head_dim,
                                float scale) {
  const size_t lanes = hn::Lanes(DF());
  const size_t stride = a.step * head_dim;
  float* acc = a.acc + first * stride;
  HWY_ALIGN float p[kQueries][kBlockTokens];
  Scores<kQueries>(a.q + first * stride, stride, keys, values, n_tokens, head_dim, p);
  for (size_t k = 0; k < kQueries; ++k) {
    Weigh(p[k], n_tokens, head_dim, scale, a.states + (first + k) * a.step, acc + k * stride);
  }
  size_t d = 0;
  for (; d + 4 * lanes <= head_dim; d += 4 * lanes) {
    AddValues<kQueries, 4>(values + d, n_tokens, head_dim, p, acc + d, stride);
  }
  for (; d + lanes <= head_dim; d += lanes) {
    AddValues<kQueries, 1>(values + d, n_tokens, head_dim, p, acc + d, stride);
  }
  for (; d < head_dim; ++d) {
    for (size_t t = 0; t < n_tokens; ++t) {
      const float value = HalfScalar(values[t * head_dim + d]);
      for (size_t k = 0; k < kQueries; ++k) acc[k * stride + d] += value * p[k][t];
    }
  }
}

HWY_NOINLINE inline void AttendBlock(const AttentionQueries& queries, const uint16_t* keys,
                                     const uint16_t* values, size_t n_tokens, size_t head_dim,
                                     float scale) {
  assert(n_tokens >= 1 && n_tokens <= kBlockTokens);
  size_t k = 0;
  for (; k + kMostQueries <= queries.n; k += kMostQueries) {
    AttendQueries<kMostQueries>(queries, k, keys, values, n_tokens, head_dim, scale);
  }
  switch (queries.n - k) {
    case 3:
      return AttendQueries<3>(queries, k, keys, values, n_tokens, head_dim, scale);
    case 2:
      return AttendQueries<2>(queries, k, keys, values, n_tokens, head_dim, scale);
    case 1:
      return AttendQueries<1>(queries, k, keys, values, n_tokens, head_dim, scale);
    default:
      break;
  }
}

HWY_NOINLINE inline void FinishAttention(const AttentionState& state, const float* acc,
                                         size_t head_dim, float* out) {
  const VF inverse = hn::Set(DF(), 1.0F / state.sum);
  Map2(acc, acc, head_dim, out, [inverse](VF a, VF) HWY_ATTR { return hn::Mul(a, inverse); });
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
