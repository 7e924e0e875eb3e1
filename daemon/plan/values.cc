#include "daemon/plan/values.h"

#include <algorithm>
#include <array>

#include "daemon/run/kernels.h"
#include "storage/base/bytes.h"
#include "storage/kv_cache.h"
#include "storage/weight_reader.h"

namespace thimble {
namespace {

constexpr uint64_t kAlignment = 64;

void Need(const Linear& linear, XnForms* forms) {
  if (FormFor(linear.tensor->type) == ActivationForm::kQ8) {
    forms->as_q8 = true;
  } else {
    forms->as_float = true;
  }
}

// Takes `bytes` at the end of the layout and returns where they begin.
uint64_t Take(WorkLayout* layout, uint64_t bytes) {
  const uint64_t begin = layout->bytes;
  layout->bytes += AlignUp(bytes, kAlignment);
  return begin;
}

uint64_t MostOutputs(const Stage& stage, const std::vector<Tile>& tiles, Operand operand) {
  uint64_t most = 0;
  for (uint32_t i = stage.tile_begin; i < stage.tile_end; ++i) {
    if (tiles[i].operand == operand) most = std::max<uint64_t>(most, tiles[i].outputs);
  }
  return most;
}

uint64_t PreparedBytes(const Linear& linear) {
  return PreparedRowBytes(FormFor(linear.tensor->type), linear.tensor->columns);
}

}  // namespace

std::string_view ValueName(Value value) {
  constexpr std::array<std::string_view, 7> kNames = {"x", "xn", "q", "kv", "att", "", "logits"};
  return kNames[static_cast<size_t>(value)];
}

XnForms FormsAfter(const Model& model, const Stage& norm) {
  XnForms forms;
  const Layer& layer = model.layers[norm.layer];
  switch (norm.kind) {
    case StageKind::kAttentionNorm:
    case StageKind::kQkv:
      Need(layer.wq, &forms);
      Need(layer.wk, &forms);
      Need(layer.wv, &forms);
      break;
    case StageKind::kFfnNorm:
    case StageKind::kFfn:
      if (layer.ffn_gate.has_value()) Need(*layer.ffn_gate, &forms);
      Need(layer.ffn_up, &forms);
      break;
    default:
      Need(model.output, &forms);
      break;
  }
  return forms;
}

uint64_t XnRowBytes(const Model& model, XnForms forms) {
  uint64_t bytes = 0;
  if (forms.as_float) bytes += PreparedRowBytes(ActivationForm::kFloat, model.hidden_size);
  if (forms.as_q8) bytes += PreparedRowBytes(ActivationForm::kQ8, model.hidden_size);
  return bytes;
}

PartRange PartsOf(const Model& model, const Stage& stage, Value value) {
  switch (value) {
    case Value::kQ:
    case Value::kAtt:
      if (stage.kind == StageKind::kOutput) return {0, model.n_heads};
      return {stage.head_begin, stage.head_end};
    case Value::kKv:
      // The last stage of a layer gathers what the ones before it have made.
      if (stage.last_of_layer) return {0, model.n_kv_heads};
      return {KvHeadBegin(model, stage), KvHeadEnd(model, stage)};
    default:
      return {0, 1};
  }
}

uint64_t PartBytes(const Model& model, Value value, XnForms forms, uint64_t rows) {
  switch (value) {
    case Value::kX:
      return rows * model.hidden_size * sizeof(float);
    case Value::kXn:
      return rows * XnRowBytes(model, forms);
    case Value::kQ:
    case Value::kAtt:
      return rows * model.head_dim * sizeof(float);
    case Value::kKv:
      return rows * 2 * model.head_dim * sizeof(uint16_t);
    case Value::kLogits:
      break;
  }
  return 0;
}

StageAccess AccessOf(const Stage& stage) {
  switch (stage.kind) {
    case StageKind::kEmbed:
      return {0, Bit(Value::kX)};
    case StageKind::kAttentionNorm:
    case StageKind::kFfnNorm:
    case StageKind::kFinalNorm:
      return {Bit(Value::kX), Bit(Value::kXn)};
    case StageKind::kQkv: {
      const bool gathers = stage.last_of_layer && stage.head_begin > 0;
      return {static_cast<uint8_t>(Bit(Value::kXn) | (gathers ? Bit(Value::kKv) : 0)),
              static_cast<uint8_t>(Bit(Value::kQ) | Bit(Value::kKv))};
    }
    case StageKind::kAttention:
      return {Bit(Value::kQ), Bit(Value::kAtt)};
    case StageKind::kOutput:
      return {static_cast<uint8_t>(Bit(Value::kAtt) | Bit(Value::kX)), Bit(Value::kX)};
    case StageKind::kFfn:
      return {static_cast<uint8_t>(Bit(Value::kXn) | Bit(Value::kX)), Bit(Value::kX)};
    case StageKind::kLogits:
      return {Bit(Value::kXn), 0};
    case StageKind::kSample:
      break;
  }
  return {};
}

WorkLayout LayoutWork(const Model& model, const Stage& stage, const std::vector<Tile>& tiles,
                      uint64_t rows, uint64_t logit_rows) {
  WorkLayout layout;
  const Layer& layer = model.layers[stage.layer];
  const uint64_t hidden_bytes = model.hidden_size * sizeof(float);
  switch (stage.kind) {
    case StageKind::kEmbed: {
      const auto read_bytes = [&](const TensorInfo* tensor) {
        const uint64_t row = RowBytes(tensor->type, tensor->columns);
        // A row may begin anywhere in a page.
        return AlignUp(row + kReadAlignment - 1, kReadAlignment);
      };
      layout.read_bytes = read_bytes(model.token_embedding);
      if (model.position_embedding != nullptr) {
        layout.read_bytes = std::max(layout.read_bytes, read_bytes(model.position_embedding));
      }
      Take(&layout,
           std::min<uint64_t>(rows, kEmbedRowsTogether) * EmbedReads(model) * layout.read_bytes);
      layout.row = Take(&layout, hidden_bytes);
      break;
    }
    case StageKind::kAttentionNorm:
    case StageKind::kFfnNorm:
    case StageKind::kFinalNorm:
      layout.weight = Take(&layout, hidden_bytes);
      layout.row = Take(&layout, hidden_bytes);
      break;
    case StageKind::kQkv: {
      const uint64_t kv_heads = KvHeadEnd(model, stage) - KvHeadBegin(model, stage);
      const uint64_t bytes = rows * kv_heads * model.head_dim * sizeof(float);
      layout.keys = Take(&layout, bytes);
      layout.values = Take(&layout, bytes);
      if (stage.last_of_layer) {
        layout.kv_rows =
            Take(&layout, rows * 2 * model.n_kv_heads * model.head_dim * sizeof(uint16_t));
      }
      break;
    }
    case StageKind::kAttention:
      layout.states =
          Take(&layout, rows * (stage.head_end - stage.head_begin) * sizeof(AttentionState));
      layout.kv_block_bytes =
          AlignUp(uint64_t{2} * kKvBlockTokens * model.head_dim * sizeof(uint16_t), kAlignment);
      layout.kv_block = Take(&layout, layout.kv_block_bytes);
      break;
    case StageKind::kOutput:
      layout.row = Take(&layout, uint64_t{model.n_heads} * model.head_dim * sizeof(float));
      layout.prepared = Take(&layout, rows * PreparedBytes(layer.wo));
      layout.outputs =
          Take(&layout, rows * MostOutputs(stage, tiles, Operand::kOutput) * sizeof(float));
      break;
    case StageKind::kFfn: {
      layout.hidden = Take(&layout, rows * model.ffn_size * sizeof(float));
      layout.prepared = Take(&layout, rows * PreparedBytes(layer.ffn_down));
      // The gate's outputs of a tile are used before the first output of `down` is made.
      const uint64_t outputs = std::max(MostOutputs(stage, tiles, Operand::kGate),
                                        MostOutputs(stage, tiles, Operand::kDown));
      layout.outputs = layout.gate = Take(&layout, rows * outputs * sizeof(float));
      break;
    }
    case StageKind::kLogits:
      layout.outputs =
          Take(&layout, logit_rows * MostOutputs(stage, tiles, Operand::kLogits) * sizeof(float));
      break;
    case StageKind::kSample:
      break;
  }
  return layout;
}

}  // namespace thimble
