// Stages as data: the smallest units of a token's computation, in the order in which they run, with
// the weights each reads, cut into tiles.
//
// Source: the staged method DESIGN follows ("Разделение задач генерации текста на этапы ...",
// 2025). The stages of a layer are its kinds: normalisation; query, key and value of a head;
// attention of a head; concatenation and output projection; feed-forward. A layer has 4 + 2 x heads
// of them, or, with the heads of a layer in one stage, 6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"

namespace thimble {

enum class StageKind : uint8_t {
  kEmbed,          // token (and position) embedding, by rows -> x
  kAttentionNorm,  // x -> xn
  kQkv,  // xn -> q, kv of heads [head_begin, head_end); a layer's last one appends the rows to the
         // KV cache
  kAttention,  // q, KV cache -> att of heads [head_begin, head_end)
  kOutput,     // att, x -> x: concatenation and output projection
  kFfnNorm,    // x -> xn
  kFfn,        // xn, x -> x
  kFinalNorm,  // x -> xn, of the rows that want logits
  kLogits,     // xn -> tiles of logits -> the sinks
  kSample,     // the sinks' candidates -> tokens; the scheduler does it when the pass ends
};
inline constexpr size_t kStageKinds = 10;
std::string_view StageKindName(StageKind kind);  // "attention_norm"

// What a tile's outputs are to its stage.
enum class Operand : uint8_t { kNorm, kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kLogits };

// A row-aligned span of a matrix, or a span of a vector: what is read from flash at once, and used
// at once. y[out_begin, out_begin + outputs) of the operand, from `columns` inputs.
struct Tile {
  const TensorInfo* tensor = nullptr;
  uint64_t offset = 0;  // of the bytes, from the start of the file
  uint64_t bytes = 0;
  uint64_t columns = 0;  // of a matrix
  uint32_t out_begin = 0;
  uint32_t outputs = 0;
  Operand operand = Operand::kNorm;
  bool bias = false;                      // added to the outputs that the tiles before it have made
  uint64_t resident_offset = UINT64_MAX;  // in the arena; UINT64_MAX: streamed through the ring

  [[nodiscard]] bool resident() const { return resident_offset != UINT64_MAX; }
};

struct Stage {
  StageKind kind = StageKind::kEmbed;
  uint32_t layer = 0;
  uint32_t head_begin = 0;  // kQkv, kAttention: query heads
  uint32_t head_end = 0;
  bool last_of_layer = false;  // kQkv
  uint32_t tile_begin = 0;     // in Plan::tiles
  uint32_t tile_end = 0;
  uint64_t weight_bytes = 0;  // of its tiles
  uint32_t group = 0;
};

// Keys and values are computed by the first query head of each of the KV cache's heads.
inline uint32_t QueriesPerKvHead(const Model& model) { return model.n_heads / model.n_kv_heads; }
inline uint32_t KvHeadBegin(const Model& model, const Stage& stage) {
  return (stage.head_begin + QueriesPerKvHead(model) - 1) / QueriesPerKvHead(model);
}
inline uint32_t KvHeadEnd(const Model& model, const Stage& stage) {
  return (stage.head_end + QueriesPerKvHead(model) - 1) / QueriesPerKvHead(model);
}

// All stages of a pass and their tiles, none larger than `tile_bytes` unless a single row is.
// `by_head`: one stage for each head, else one for all heads of a layer.
void BuildStages(const Model& model, bool by_head, uint64_t tile_bytes, std::vector<Stage>* stages,
                 std::vector<Tile>* tiles);

}  // namespace thimble
