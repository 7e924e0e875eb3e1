// Models that have shapes and no file: enough to plan with.
#pragma once

#include <memory>

#include "daemon/model/model.h"

namespace thimble {

struct FakeShape {
  uint32_t n_layers = 12;
  uint32_t n_heads = 12;
  uint32_t n_kv_heads = 12;
  uint32_t head_dim = 64;
  uint64_t ffn_size = 3072;
  uint32_t context_tokens = 512;
  uint32_t vocab_size = 50257;
  TensorType type = TensorType::kQ8_0;
  bool gated = false;  // llama: SwiGLU, RMS norms; otherwise gpt2: GELU, layer norms, biases
  bool tied = true;
};

// SmolLM2-135M's shape.
FakeShape SmolShape();

std::unique_ptr<Model> MakeFakeModel(const FakeShape& shape);

}  // namespace thimble
