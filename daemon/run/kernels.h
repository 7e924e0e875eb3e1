// The arithmetic of a token, behind one interface: matrix products, norms, rope, attention over KV
// blocks. Compiled once per SIMD target with Highway and dispatched at run time; kernels-inl.h
// bodies are private to this folder. Called by: the stages. Memory: none of its own, all buffers
// are the caller's.
//
// One order of sums: y[r][o] is computed by the same operations in the same order for any number
// of rows, any tile of outputs and any alignment of the weights, so the text does not depend on how
// work is cut. (SIMD targets may differ from one another in the last bits.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "daemon/model/tensor_type.h"

namespace thimble {

// The name of the SIMD target in use: "AVX3_ZEN4", "NEON", "EMU128".
const char* KernelTarget();

// Activations prepared for products with one kind of weights, once per row.
//  - float weights (F32, F16, BF16): float[columns] as they are;
//  - quantized weights: 8-bit blocks of 32 in structure-of-arrays form for one row:
//      int8 q[columns]; float scale[columns/32]; int16 sum[columns/16] (sums of q over 16 values)
//    with value = scale * q, scale = max|x| / 127. The same form serves every quantized type.
enum class ActivationForm : uint8_t { kFloat, kQ8 };
inline ActivationForm FormFor(TensorType weights) {
  return Traits(weights).quantized ? ActivationForm::kQ8 : ActivationForm::kFloat;
}
// Bytes of one prepared row, a multiple of 64. kQ8 needs columns % 32 == 0.
size_t PreparedRowBytes(ActivationForm form, size_t columns);
// x: [columns]; out: PreparedRowBytes(form, columns), aligned to 64.
void PrepareRow(ActivationForm form, const float* x, size_t columns, void* out);

// y[r * y_stride + o] = sum_i w[o][i] * x[r][i], for r < n_rows, o < n_outputs.
//  w: n_outputs rows of RowBytes(type, columns), any alignment.
//  x: n_rows prepared rows, x_stride_bytes apart (a multiple of 64).
//  next: weights that are wanted next, or null: fetched into the processor's caches meanwhile.
void MatMul(TensorType type, const void* w, size_t n_outputs, size_t columns, const void* x,
            size_t x_stride_bytes, size_t n_rows, float* y, size_t y_stride,
            const void* next = nullptr);

// One row of any tensor type as floats (the embedding). out: [columns].
void DequantizeRow(TensorType type, const void* row, size_t columns, float* out);

// x / sqrt(mean(x^2) + epsilon) * weight. All [n]; out may be x.
void RmsNorm(const float* x, const float* weight, float epsilon, size_t n, float* out);
// (x - mean) / sqrt(variance + epsilon) * weight + bias. All [n]; out may be x.
void LayerNorm(const float* x, const float* weight, const float* bias, float epsilon, size_t n,
               float* out);

// Rotates the first 2 * n_pairs values of one head in place. cosine, sine: [n_pairs].
// interleaved: pairs (2i, 2i+1), else (i, i + n_pairs).
void ApplyRope(float* head, const float* cosine, const float* sine, size_t n_pairs,
               bool interleaved);

void Gelu(float* x, size_t n);                        // tanh form, in place
void SwiGlu(const float* gate, float* up, size_t n);  // up[i] *= gate[i] / (1 + exp(-gate[i]))
void AddInPlace(float* y, const float* x, size_t n);  // y[i] += x[i]

// The largest of x[n]; NaN counts for nothing, -infinity where nothing is left.
float Largest(const float* x, size_t n);
// The sum of exp(x[i] - max), max finite and no x[i] above it; NaN counts for nothing.
float SumOfExp(const float* x, size_t n, float max);

// float <-> IEEE half, round to nearest even.
void FloatToHalf(const float* x, size_t n, uint16_t* out);
void HalfToFloat(const uint16_t* x, size_t n, float* out);
// n / 32 blocks of Q8_0 (a half, the scale, and 32 signed bytes each) to n halves: scale * q, to
// nearest even. `out` may begin before `blocks` in the same buffer, by 30 bytes a block or more:
// what a block is read from is not written before.
void Q8ToHalf(const uint16_t* blocks, size_t n, uint16_t* out);

// The running softmax of one query head (Milakov and Gimelshein, arXiv:1805.02867).
struct AttentionState {
  float max = -3.0e38F;  // of the scores so far
  float sum = 0.0F;      // of exp(score - max)
};
// Queries that see a KV block alike: of the heads that share its keys, or of several rows. Query
// k's vector is q + k * step * head_dim, its state states[k * step], its sums acc + k * step *
// head_dim, zeroed before the first block.
struct AttentionQueries {
  const float* q = nullptr;
  AttentionState* states = nullptr;
  float* acc = nullptr;
  size_t n = 1;
  size_t step = 1;
};
// Adds one KV block to each query: n_tokens in [1, 32]; keys, values: half [n_tokens, head_dim].
// scale is applied to the scores (1/sqrt(head_dim)). Blocks must come in order. What a query gets
// does not depend on the others.
void AttendBlock(const AttentionQueries& queries, const uint16_t* keys, const uint16_t* values,
                 size_t n_tokens, size_t head_dim, float scale);
// out[i] = acc[i] / state.sum. [head_dim]; out may be acc.
void FinishAttention(const AttentionState& state, const float* acc, size_t head_dim, float* out);

}  // namespace thimble
