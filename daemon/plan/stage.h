// Stages as data: the smallest units of a token's computation, in the order in which they run, with
// what each reads, writes and needs in RAM.
//
// Source: the staged method of DESIGN's paper; the stages of a layer are its five kinds: normalisation;
// query, key and value of a head; attention of a head; concatenation and output projection; feed-forward.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"

namespace thimble {

enum class StageKind : uint8_t {
  kEmbed,          // token (and position) embedding -> x
  kAttentionNorm,  // x -> xn
  kQkv,            // xn -> q, kv of heads [head_begin, head_end); the last one of a layer writes the KV cache
  kAttention,      // q, KV cache -> att of heads [head_begin, head_end)
  kOutput,         // att, x -> x: concatenation and output projection
  kFfnNorm,        // x -> xn
  kFfn,            // xn, x -> x
  kFinalNorm,      // x -> xn, of the rows that want logits
  kLogits,         // xn -> tiles of logits, to the sinks
  kSample,         // candidates -> token; runs in the scheduler, which ends the pass
};
inline constexpr size_t kStageKinds = 10;
std::string_view StageKindName(StageKind kind);  // "attention_norm"

// Values that stages hand on. On disk (stage store): never change these values.
enum class Value : uint8_t {
  kX = 0,        // float  [rows][hidden_size]: the residual stream
  kXn = 1,       // prepared [rows]: the normalised row as the next product takes it
  kQ = 2,        // float  [n_heads][rows][head_dim]; a part per head
  kKv = 3,       // half   [rows][n_kv_heads][2][head_dim]; a part per head
  kAtt = 4,      // float  [n_heads][rows][head_dim]; a part per head
  kWork = 5,     // within a stage: see plan.cc, never handed on
  kLogits = 6,   // wide sampling: float [vocab_size], a part per slot; written by the sampler
};
inline constexpr size_t kPlanValues = 6;  // those that live in the arena

// A row-aligned span of weights: what is read from flash at once and used at once.
struct Tile {
  const TensorInfo* tensor = nullptr;
  uint64_t row_begin = 0;
  uint64_t rows = 0;
  uint64_t offset = 0;  // of the bytes, from the start of the file
  uint64_t bytes = 0;
};

// What a tile is to its stage.
enum class Operand : uint8_t { kWeight, kBias, kNormWeight, kNormBias, kQ, kK, kV, kGate, kUp, kDown };

}  // namespace thimble
