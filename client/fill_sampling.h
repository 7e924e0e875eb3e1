// Sampling options into their message: what is not set stays unset, and the daemon's default holds.
// Called by: the commands (SamplingFlags), the client library (GenerateOptions), whose fields have
// the same names. Memory: none.
#pragma once

#include "thimble/v1/thimble.pb.h"

namespace thimble {

template <typename Options>
void FillSampling(const Options& options, v1::SamplingOptions* sampling) {
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.min_p) sampling->set_min_p(*options.min_p);
  if (options.repeat_penalty) sampling->set_repeat_penalty(*options.repeat_penalty);
  if (options.repeat_last_n) sampling->set_repeat_last_n(*options.repeat_last_n);
  if (options.presence_penalty) sampling->set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) sampling->set_frequency_penalty(*options.frequency_penalty);
  if (options.seed) sampling->set_seed(*options.seed);
}

}  // namespace thimble
