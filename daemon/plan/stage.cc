#include "daemon/plan/stage.h"

#include <algorithm>
#include <array>

namespace thimble {
namespace {

class Builder {
 public:
  Builder(const Model& model, uint64_t tile_bytes, std::vector<Stage>* stages,
          std::vector<Tile>* tiles)
      : model_(model), tile_bytes_(tile_bytes), stages_(*stages), tiles_(*tiles) {}

  void Begin(StageKind kind, uint32_t layer, uint32_t head_begin = 0, uint32_t head_end = 0) {
    Stage stage;
    stage.kind = kind;
    stage.layer = layer;
    stage.head_begin = head_begin;
    stage.head_end = head_end;
    stage.last_of_layer = kind == StageKind::kQkv && head_end == model_.n_heads;
    stage.tile_begin = static_cast<uint32_t>(tiles_.size());
    stages_.push_back(stage);
  }

  void End() {
    Stage& stage = stages_.back();
    stage.tile_end = static_cast<uint32_t>(tiles_.size());
    for (uint32_t i = stage.tile_begin; i < stage.tile_end; ++i) {
      stage.weight_bytes += tiles_[i].bytes;
    }
  }

  void AddNorm(const Norm& norm) {
    AddVector(norm.weight, 0, static_cast<uint32_t>(norm.weight->columns), Operand::kNorm, false);
    if (norm.bias != nullptr) {
      AddVector(norm.bias, 0, static_cast<uint32_t>(norm.bias->columns), Operand::kNorm, true);
    }
  }

  // Outputs [begin, end) of `linear`, tile by tile, each followed by its part of the bias.
  void AddLinear(const Linear& linear, uint64_t begin, uint64_t end, Operand operand) {
    const uint64_t step = RowsPerTile(linear);
    for (uint64_t row = begin; row < end; row += step) {
      AddRows(linear, row, std::min(step, end - row), operand);
    }
  }

  // Gate and up by turns, so that the gate's outputs of one tile are all that must be kept.
  void AddGated(const Linear& gate, const Linear& up) {
    const uint64_t step = std::min(RowsPerTile(gate), RowsPerTile(up));
    for (uint64_t row = 0; row < up.rows; row += step) {
      const uint64_t rows = std::min(step, up.rows - row);
      AddRows(gate, row, rows, Operand::kGate);
      AddRows(up, row, rows, Operand::kUp);
    }
  }

 private:
  [[nodiscard]] uint64_t RowsPerTile(const Linear& linear) const {
    const uint64_t row_bytes = RowBytes(linear.tensor->type, linear.tensor->columns);
    const uint64_t most = std::max<uint64_t>(1, tile_bytes_ / row_bytes);
    // Tiles of one size: the last one is not a scrap that costs a read of its own.
    const uint64_t n_tiles = (linear.rows + most - 1) / most;
    return (linear.rows + n_tiles - 1) / n_tiles;
  }

  void AddRows(const Linear& linear, uint64_t row, uint64_t rows, Operand operand) {
    const uint64_t row_bytes = RowBytes(linear.tensor->type, linear.tensor->columns);
    Tile tile;
    tile.tensor = linear.tensor;
    tile.offset = linear.tensor->offset + (linear.row_begin + row) * row_bytes;
    tile.bytes = rows * row_bytes;
    tile.columns = linear.tensor->columns;
    tile.out_begin = static_cast<uint32_t>(row);
    tile.outputs = static_cast<uint32_t>(rows);
    tile.operand = operand;
    tiles_.push_back(tile);
    if (linear.bias == nullptr) return;
    AddVector(linear.bias, linear.row_begin + row, static_cast<uint32_t>(rows), operand, true);
    tiles_.back().out_begin = static_cast<uint32_t>(row);
  }

  void AddVector(const TensorInfo* tensor, uint64_t begin, uint32_t count, Operand operand,
                 bool bias) {
    Tile tile;
    tile.tensor = tensor;
    tile.offset = tensor->offset + begin * sizeof(float);
    tile.bytes = count * sizeof(float);
    tile.out_begin = static_cast<uint32_t>(begin);
    tile.outputs = count;
    tile.operand = operand;
    tile.bias = bias;
    tiles_.push_back(tile);
  }

  const Model& model_;
  const uint64_t tile_bytes_;
  std::vector<Stage>& stages_;
  std::vector<Tile>& tiles_;
};

}  // namespace

std::string_view StageKindName(StageKind kind) {
  constexpr std::array<std::string_view, kStageKinds> kNames = {
      "embed", "attention_norm", "qkv",    "attention", "output", "ffn_norm",
      "ffn",   "final_norm",     "logits", "sample"};
  return kNames[static_cast<size_t>(kind)];
}

void BuildStages(const Model& model, bool by_head, uint64_t tile_bytes, std::vector<Stage>* stages,
                 std::vector<Tile>* tiles) {
  Builder builder(model, tile_bytes, stages, tiles);
  const uint32_t head_step = by_head ? 1 : model.n_heads;
  const auto layer_stage = [&](StageKind kind, uint32_t layer, const auto& add) {
    builder.Begin(kind, layer);
    add(model.layers[layer]);
    builder.End();
  };

  builder.Begin(StageKind::kEmbed, 0);
  builder.End();
  for (uint32_t layer = 0; layer < model.n_layers; ++layer) {
    const Layer& weights = model.layers[layer];
    layer_stage(StageKind::kAttentionNorm, layer,
                [&](const Layer& w) { builder.AddNorm(w.attention_norm); });
    for (uint32_t head = 0; head < model.n_heads; head += head_step) {
      builder.Begin(StageKind::kQkv, layer, head, head + head_step);
      const Stage& stage = stages->back();
      const uint64_t kv_begin = uint64_t{KvHeadBegin(model, stage)} * model.head_dim;
      const uint64_t kv_end = uint64_t{KvHeadEnd(model, stage)} * model.head_dim;
      builder.AddLinear(weights.wq, uint64_t{head} * model.head_dim,
                        uint64_t{head + head_step} * model.head_dim, Operand::kQuery);
      builder.AddLinear(weights.wk, kv_begin, kv_end, Operand::kKey);
      builder.AddLinear(weights.wv, kv_begin, kv_end, Operand::kValue);
      builder.End();
    }
    for (uint32_t head = 0; head < model.n_heads; head += head_step) {
      builder.Begin(StageKind::kAttention, layer, head, head + head_step);
      builder.End();
    }
    layer_stage(StageKind::kOutput, layer,
                [&](const Layer& w) { builder.AddLinear(w.wo, 0, w.wo.rows, Operand::kOutput); });
    layer_stage(StageKind::kFfnNorm, layer, [&](const Layer& w) { builder.AddNorm(w.ffn_norm); });
    layer_stage(StageKind::kFfn, layer, [&](const Layer& w) {
      if (w.ffn_gate.has_value()) {
        builder.AddGated(*w.ffn_gate, w.ffn_up);
      } else {
        builder.AddLinear(w.ffn_up, 0, w.ffn_up.rows, Operand::kUp);
      }
      builder.AddLinear(w.ffn_down, 0, w.ffn_down.rows, Operand::kDown);
    });
  }
  builder.Begin(StageKind::kFinalNorm, 0);
  builder.AddNorm(model.output_norm);
  builder.End();
  builder.Begin(StageKind::kLogits, 0);
  builder.AddLinear(model.output, 0, model.output.rows, Operand::kLogits);
  builder.End();
  builder.Begin(StageKind::kSample, 0);
  builder.End();
}

}  // namespace thimble
