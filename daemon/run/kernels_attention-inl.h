// Attention of one query head over one KV block, with a running softmax. Memory: 256 bytes of
// stack.
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

HWY_INLINE float HalfScalar(uint16_t half) {
#if HWY_TARGET == HWY_SCALAR
  return hn::GetLane(HalfBitsToFloat(hn::Set(DU(), half)));
#else
  HWY_ALIGN uint16_t padded[HWY_MAX_BYTES / sizeof(float)] = {half};
  return hn::GetLane(LoadHalf(padded));
#endif
}

// acc[d] = acc[d] * factor for d < n; factor is 1 for all blocks that do not raise the maximum.
HWY_INLINE void Rescale(float* acc, size_t n, float factor) {
  const VF vfactor = hn::Set(DF(), factor);
  Map2(acc, acc, n, acc, [vfactor](VF a, VF) HWY_ATTR { return hn::Mul(a, vfactor); });
}

// scores[t] = scale * q . keys[t]. Values past the last whole vector are added in scalar.
HWY_INLINE void Scores(const float* q, const uint16_t* keys, size_t n_tokens, size_t head_dim,
                       float scale, float* scores) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  const size_t whole = head_dim / lanes * lanes;
  const size_t last = n_tokens - 1;
  for (size_t t = 0; t < n_tokens; t += 4) {
    // Four tokens at a time hide the latency of the additions; past the end the last one is
    // repeated.
    const uint16_t* k0 = keys + t * head_dim;
    const uint16_t* k1 = keys + std::min(t + 1, last) * head_dim;
    const uint16_t* k2 = keys + std::min(t + 2, last) * head_dim;
    const uint16_t* k3 = keys + std::min(t + 3, last) * head_dim;
    VF s0 = hn::Zero(df);
    VF s1 = hn::Zero(df);
    VF s2 = hn::Zero(df);
    VF s3 = hn::Zero(df);
    for (size_t d = 0; d < whole; d += lanes) {
      const VF vq = hn::LoadU(df, q + d);
      s0 = hn::MulAdd(LoadHalf(k0 + d), vq, s0);
      s1 = hn::MulAdd(LoadHalf(k1 + d), vq, s1);
      s2 = hn::MulAdd(LoadHalf(k2 + d), vq, s2);
      s3 = hn::MulAdd(LoadHalf(k3 + d), vq, s3);
    }
    float sum0 = hn::GetLane(hn::SumOfLanes(df, s0));
    float sum1 = hn::GetLane(hn::SumOfLanes(df, s1));
    float sum2 = hn::GetLane(hn::SumOfLanes(df, s2));
    float sum3 = hn::GetLane(hn::SumOfLanes(df, s3));
    for (size_t d = whole; d < head_dim; ++d) {
      sum0 += HalfScalar(k0[d]) * q[d];
      sum1 += HalfScalar(k1[d]) * q[d];
      sum2 += HalfScalar(k2[d]) * q[d];
      sum3 += HalfScalar(k3[d]) * q[d];
    }
    scores[t] = sum0 * scale;  // scores has room for a multiple of four
    scores[t + 1] = sum1 * scale;
    scores[t + 2] = sum2 * scale;
    scores[t + 3] = sum3 * scale;
  }
}

HWY_NOINLINE inline void AttendBlock(const float* q, const uint16_t* keys, const uint16_t* values,
                                     size_t n_tokens, size_t head_dim, float scale,
                                     AttentionState* state, float* acc) {
  assert(n_tokens >= 1 && n_tokens <= kBlockTokens);
  const DF df;
  const size_t lanes = hn::Lanes(df);
  HWY_ALIGN float p[kBlockTokens];
  Scores(q, keys, n_tokens, head_dim, scale, p);

  float max = state->max;
  for (size_t t = 0; t < n_tokens; ++t) max = std::max(max, p[t]);
  // Tokens that are not there weigh nothing: exp(-inf) is zero.
  for (size_t t = n_tokens; t < kBlockTokens; ++t) p[t] = -3.0e38F;
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
    const VF weight = Exp(hn::Sub(hn::Load(df, p + t), vmax));
    hn::Store(weight, df, p + t);
    vsum = hn::Add(vsum, weight);
  }
  state->sum += hn::GetLane(hn::SumOfLanes(df, vsum));

  size_t d = 0;
  for (; d + 4 * lanes <= head_dim; d += 4 * lanes) {
    VF a0 = hn::LoadU(df, acc + d);
    VF a1 = hn::LoadU(df, acc + d + lanes);
    VF a2 = hn::LoadU(df, acc + d + 2 * lanes);
    VF a3 = hn::LoadU(df, acc + d + 3 * lanes);
    for (size_t t = 0; t < n_tokens; ++t) {
      const uint16_t* v = values + t * head_dim + d;
      const VF weight = hn::Set(df, p[t]);
      a0 = hn::MulAdd(LoadHalf(v), weight, a0);
      a1 = hn::MulAdd(LoadHalf(v + lanes), weight, a1);
      a2 = hn::MulAdd(LoadHalf(v + 2 * lanes), weight, a2);
      a3 = hn::MulAdd(LoadHalf(v + 3 * lanes), weight, a3);
    }
    hn::StoreU(a0, df, acc + d);
    hn::StoreU(a1, df, acc + d + lanes);
    hn::StoreU(a2, df, acc + d + 2 * lanes);
    hn::StoreU(a3, df, acc + d + 3 * lanes);
  }
  for (; d + lanes <= head_dim; d += lanes) {
    VF a = hn::LoadU(df, acc + d);
    for (size_t t = 0; t < n_tokens; ++t) {
      a = hn::MulAdd(LoadHalf(values + t * head_dim + d), hn::Set(df, p[t]), a);
    }
    hn::StoreU(a, df, acc + d);
  }
  for (; d < head_dim; ++d) {
    for (size_t t = 0; t < n_tokens; ++t) acc[d] += HalfScalar(values[t * head_dim + d]) * p[t];
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
