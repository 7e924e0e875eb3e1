// Rotary position embedding's frequencies with every scaling variant folded in: linear, YaRN
// (arXiv:2309.00071, NTK by parts) and Llama 3's factors, as llama.cpp computes them.
// Called by: architectures that have rope. Memory: the frequencies, 4 bytes a pair.
#pragma once

#include <cstdint>
#include <span>

#include "daemon/model/arch_reader.h"
#include "daemon/model/model.h"
#include "storage/base/status.h"

namespace thimble {

struct RopeParameters {
  uint32_t dimensions = 0;  // even; of these, pair i turns by freq_base^(-2i/dimensions) a position
  double freq_base = 10000;
  bool interleaved = true;
  double factor = 1;  // how many times longer than `original_context_tokens` the context has become
  bool yarn = false;  // otherwise every frequency is divided by `factor`
  double original_context_tokens = 0;  // YaRN only, as are the rest
  double extrapolation = 1;            // how much of the unscaled frequency the mix may hold
  double attention_factor = 1;         // on top of YaRN's own 1 + 0.1 ln(factor)
  double beta_fast =
      32;  // pairs that turn more often than this within the original context stay as they are
  double beta_slow = 1;  // those that turn less often are divided by `factor`; between: a ramp
};

// `factors`: a divisor for each pair's frequency (Llama 3's rope_freqs.weight), or empty.
Rope MakeRope(const RopeParameters& parameters, std::span<const float> factors);

// Reads ARCH.rope.* and rope_freqs.weight. model's head_dim and context_tokens are known; so is
// that head_dim is no larger than the file.
Result<Rope> ReadRope(ArchReader& reader, const Model& model, bool interleaved);

}  // namespace thimble
