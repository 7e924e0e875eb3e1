// The shapes of what stages hand on and of what they need while they run, in one place: the planner
// asks with the most rows a pass may have, the runner with the rows it has.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"
#include "daemon/plan/stage.h"

namespace thimble {

// Values that stages hand on. On disk (stage store): never change these values.
enum class Value : uint8_t {
  kX = 0,  // float [rows][hidden_size]: the residual stream
  kXn =
      1,  // [rows] prepared for the products that follow: float form, then 8-bit form, those needed
  kQ = 2,       // float [heads][rows][head_dim]; a part per head
  kKv = 3,      // half  [kv heads][rows][2][head_dim]; a part per KV head
  kAtt = 4,     // float [heads][rows][head_dim]; a part per head
  kLogits = 6,  // wide sampling: float [vocab_size], a part per request; written by the sampler
};
inline constexpr size_t kArenaValues = 5;  // kX to kAtt live in the arena
std::string_view ValueName(Value value);   // "xn"

constexpr uint8_t Bit(Value value) {
  return static_cast<uint8_t>(1U << static_cast<unsigned>(value));
}

// The forms in which the rows of xn are needed by the stage that follows a norm.
struct XnForms {
  bool as_float = false;
  bool as_q8 = false;
};
XnForms FormsAfter(const Model& model, const Stage& norm);

// Bytes of one row of xn, and where the 8-bit form begins (the float form of all rows is first).
uint64_t XnRowBytes(const Model& model, XnForms forms);

// Heads of a value that a stage touches: [begin, end). Whole values have the one part 0.
struct PartRange {
  uint32_t begin = 0;
  uint32_t end = 1;
};
PartRange PartsOf(const Model& model, const Stage& stage, Value value);

// Bytes of one part for `rows` rows. `forms` matters to kXn alone.
uint64_t PartBytes(const Model& model, Value value, XnForms forms, uint64_t rows);

// Values that a stage reads and writes, as bits.
struct StageAccess {
  uint8_t reads = 0;
  uint8_t writes = 0;
};
StageAccess AccessOf(const Stage& stage);

// What a stage needs beside its values and weights, as offsets into its work buffer; all aligned to
// 64 bytes (kEmbed's to 4096, for direct reading).
struct WorkLayout {
  // kEmbed: read buffers of read_bytes each [rows read together][EmbedReads], then a float row
  // [hidden_size]
  // norms: weight, row: float [hidden_size] each
  // kQkv: keys, values: float [rows][kv heads of the stage x head_dim]; kv_rows: half
  // [rows][n_kv_heads][2][head_dim] kAttention: states [heads of the stage][rows]; one KV block:
  // half [2][32][head_dim] kOutput, kFfn: prepared rows, outputs of a tile: float [rows][tile
  // outputs]; kFfn: hidden float
  //   [rows][ffn_size], gate float [rows][tile outputs]
  // kLogits: float [logit rows][tile outputs]
  uint64_t row = 0, read_bytes = 0, weight = 0;
  uint64_t keys = 0, values = 0, kv_rows = 0;
  uint64_t states = 0, kv_block = 0;
  uint64_t prepared = 0, outputs = 0, hidden = 0, gate = 0;
  uint64_t kv_block_bytes = 0;  // of `bytes`
  uint64_t bytes = 0;
};
// Rows of the embedding that are read at once: each is a small read, which takes the device as long
// as hundreds of KiB.
inline constexpr uint32_t kEmbedRowsTogether = 8;
// Reads of a row: the token's, and the position's where the model has such.
inline constexpr uint32_t kMostEmbedReads = 2;
inline uint32_t EmbedReads(const Model& model) {
  return model.position_embedding != nullptr ? kMostEmbedReads : 1;
}
WorkLayout LayoutWork(const Model& model, const Stage& stage, const std::vector<Tile>& tiles,
                      uint64_t rows, uint64_t logit_rows);

}  // namespace thimble
