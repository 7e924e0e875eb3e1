// Keys and values as q8_0: 32 values share a scale, a half; value = scale * int8. GGUF's format of
// the name, and its rounding, so that a head's vector is a row of that type. Each vector is
// quantized by itself and once, when it is made: what attention reads does not depend on passes,
// blocks or restarts. Called by: the query/key/value stage. Memory: none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thimble {

// n: a multiple of 32; out: n / 32 blocks of 34 bytes, which Q8ToHalf (kernels.h) takes.
void QuantizeKv(const float* x, size_t n, uint16_t* out);

}  // namespace thimble
