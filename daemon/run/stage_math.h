// What each stage computes, tile by tile, on buffers that the runner has put in place: the maths
// path, top to bottom in the order of the data. Knows nothing of files, LMDB or groups. Called by:
// the runner. Memory: none of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "daemon/model/model.h"
#include "daemon/plan/stage.h"
#include "daemon/plan/values.h"
#include "storage/kv_block_index.h"

namespace thimble {

// A stage's buffers for the rows of this pass.
struct StageBuffers {
  const Model* model = nullptr;
  const Stage* stage = nullptr;
  uint32_t rows = 0;       // n
  uint32_t row_begin = 0;  // RunTile computes rows [row_begin, row_end), of n or m
  uint32_t row_end = 0;
  uint32_t logit_rows = 0;              // m, of the last stages
  const uint32_t* logit_row = nullptr;  // [m]: which rows want logits
  XnForms forms;                        // of xn
  float* x = nullptr;                   // [n][hidden_size]
  std::byte* xn = nullptr;              // [n or m] prepared rows
  float* q = nullptr;                   // [heads of the stage][n][head_dim]; kOutput: none
  uint16_t* kv = nullptr;               // [kv heads][n][2][head_dim], from kv_head_begin on
  uint32_t kv_head_begin = 0;           // the first KV head that `kv` holds
  KvType kv_type = KvType::kF16;        // as q8_0 vectors take the first part of their place
  size_t kv_vector = 0;                 // KvShape::VectorHalves()
  float* att = nullptr;                 // [heads][n][head_dim], from att_head_begin on
  std::byte* work = nullptr;            // as `layout` says
  const std::byte* next = nullptr;      // the next tile's bytes, where they are in RAM
  WorkLayout layout;
  const float* cosine = nullptr;  // [n][rope.dimensions / 2]
  const float* sine = nullptr;
};

// Before the first tile: what does not need weights.
void BeginStage(const StageBuffers& b);
// The rows that RunTile computes in all: m of the last stages, else n.
inline uint32_t RowsOf(const StageBuffers& b) {
  const bool last = b.stage->kind == StageKind::kFinalNorm || b.stage->kind == StageKind::kLogits;
  return last ? b.logit_rows : b.rows;
}
// One tile, whose bytes are at `bytes`, for rows [b.row_begin, b.row_end). Every row before the
// next tile. Logits are left in work + layout.outputs, [m][tile.outputs].
void RunTile(const StageBuffers& b, const Tile& tile, const std::byte* bytes);
// After the last tile. kQkv: rope, halves, and for a layer's last one the rows for the KV cache at
// work + layout.kv_rows.
void EndStage(const StageBuffers& b);

// out[i] of row `row` of the embedding: token embedding, plus position embedding where not null.
void EmbedRow(const Model& model, const std::byte* token_row, const std::byte* position_row,
              float* scratch, float* out);

// Cosines and sines of `position`: [rope.dimensions / 2] each.
void RopeAngles(const Rope& rope, uint32_t position, float* cosine, float* sine);

}  // namespace thimble
