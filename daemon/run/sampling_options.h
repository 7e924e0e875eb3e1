// How the next token is chosen: the options of one request. daemon/run/sampler.h says in which
// order they act. Called by: the sampler, admission, the request's record in the journal.
#pragma once

#include <cstdint>

#include "storage/base/status.h"

namespace thimble {

struct SamplingOptions {
  float temperature = 0.8F;     // 0: greedy; [0, 100]
  uint32_t top_k = 40;          // 0: off
  float top_p = 0.95F;          // (0, 1]; 1: off
  float min_p = 0.05F;          // [0, 1]; 0: off
  float repeat_penalty = 1.0F;  // (0, 10]; 1: off
  uint32_t repeat_last_n = 64;  // tokens looked back for the three penalties; 0: off; at most 1024
  float presence_penalty = 0.0F;   // [-2, 2]
  float frequency_penalty = 0.0F;  // [-2, 2]
  uint64_t seed = 0;
};

// INVALID_ARGUMENT naming the field, its value and its range.
Status ValidateSampling(const SamplingOptions& options);

}  // namespace thimble
