// What the plan and the runner know of a model: a description made of matrices, norms and a few
// numbers, the same for every architecture. An architecture is one file (arch_*.cc) that maps a
// GGUF file's names and keys to this description, and a row in the table in architectures.cc;
// nothing else changes when one is added.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/model/gguf.h"
#include "storage/base/file.h"
#include "storage/base/status.h"

namespace thimble {

// Rows [row_begin, row_begin + rows) of a matrix in the file: y = W x (+ bias).
// `tensor` and `bias` point into the Model's own Gguf.
struct Linear {
  const TensorInfo* tensor = nullptr;  // [rows of the tensor, columns], row-major by output
  uint64_t row_begin = 0;
  uint64_t rows = 0;
  const TensorInfo* bias = nullptr;  // f32; element row_begin + i belongs to row i
};

enum class NormKind : uint8_t { kRms, kLayer };

// kRms: x / sqrt(mean(x^2) + epsilon) * weight (arXiv:1910.07467).
// kLayer: (x - mean) / sqrt(variance + epsilon) * weight + bias (arXiv:1607.06450).
struct Norm {
  NormKind kind = NormKind::kRms;
  const TensorInfo* weight = nullptr;  // f32 [hidden_size]
  const TensorInfo* bias = nullptr;    // f32 [hidden_size], kLayer only
  float epsilon = 1e-5F;
};

enum class Activation : uint8_t {
  kGelu,    // up only: 0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))) (arXiv:1606.08415)
  kSwiGlu,  // gate and up: silu(g) * u (arXiv:2002.05202)
};

struct Layer {
  Norm attention_norm;
  Linear wq;  // [n_heads * head_dim, hidden_size]
  Linear wk;  // [n_kv_heads * head_dim, hidden_size]
  Linear wv;  // [n_kv_heads * head_dim, hidden_size]
  Linear wo;  // [hidden_size, n_heads * head_dim]
  Norm ffn_norm;
  std::optional<Linear> ffn_gate;  // [ffn_size, hidden_size], kSwiGlu only
  Linear ffn_up;                   // [ffn_size, hidden_size]
  Linear ffn_down;                 // [hidden_size, ffn_size]
};

// Rotary position embedding (arXiv:2104.09864) on the first `dimensions` values of every head.
struct Rope {
  uint32_t dimensions = 0;  // 0: the model has none
  // Pairs are (2i, 2i+1); otherwise (i, i + dimensions/2).
  bool interleaved = true;
  // Angle of pair i at position p: p * inverse_frequency[i]. Every scaling variant (linear, NTK by
  // parts as in YaRN, Llama 3's factors) is folded in here. [dimensions / 2]
  std::vector<float> inverse_frequency;
  float magnitude = 1.0F;  // YaRN's factor on cosine and sine
};

struct Model {
  std::string architecture;  // "llama"
  std::string name;          // general.name, or the file's name
  uint64_t hidden_size = 0;
  uint32_t n_layers = 0;
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;  // divides n_heads
  uint32_t head_dim = 0;
  uint64_t ffn_size = 0;
  uint32_t context_tokens = 0;  // what the model was trained for
  uint32_t vocab_size = 0;

  const TensorInfo* token_embedding = nullptr;     // [vocab_size, hidden_size], read by rows
  const TensorInfo* position_embedding = nullptr;  // [context_tokens, hidden_size] or nullptr
  Rope rope;
  Activation activation = Activation::kSwiGlu;
  std::vector<Layer> layers;
  Norm output_norm;
  Linear output;  // [vocab_size, hidden_size]; the token embedding where the file ties them

  // XXH3-128 of the header, the file's size and the first 4 KiB of every tensor's data, as 16
  // bytes. Names this model in everything kept under the state directory.
  std::array<uint8_t, 16> fingerprint{};
  FileIdentity identity;  // of the file when it was loaded

  Gguf gguf;  // owns what the pointers above point to
};

// Parses and validates `file` and maps it to a Model. Errors name the file, the key or tensor, and
// the number: INVALID_ARGUMENT for a malformed file, UNIMPLEMENTED for an architecture, tensor type
// or option thimble does not know.
Result<std::unique_ptr<Model>> LoadModel(RandomAccessFile& file);

}  // namespace thimble
