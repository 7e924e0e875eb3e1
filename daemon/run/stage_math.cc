#include "daemon/run/stage_math.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "daemon/run/kernels.h"
#include "daemon/run/kv_quant.h"

namespace thimble {
namespace {

float* Floats(const StageBuffers& b, uint64_t offset) {
  return reinterpret_cast<float*>(b.work + offset);
}

// Adds a bias tile to columns [out_begin, out_begin + outputs) of y: [rows][stride].
void AddBias(const StageBuffers& b, const Tile& tile, const std::byte* bytes, float* y,
             size_t stride) {
  // Vectors are 32-byte aligned in the file and so in RAM.
  const auto* bias = reinterpret_cast<const float*>(bytes);
  for (size_t r = b.row_begin; r < b.row_end; ++r) AddInPlace(y + r * stride, bias, tile.outputs);
}

// The prepared rows of xn that a product with `type` takes, and the bytes between them.
struct Prepared {
  const std::byte* rows;
  size_t stride;
};
Prepared XnFor(const StageBuffers& b, TensorType type) {
  const size_t hidden = b.model->hidden_size;
  const size_t float_bytes = PreparedRowBytes(ActivationForm::kFloat, hidden);
  if (FormFor(type) == ActivationForm::kFloat) return {b.xn, float_bytes};
  return {b.xn + (b.forms.as_float ? RowsOf(b) * float_bytes : 0),
          PreparedRowBytes(ActivationForm::kQ8, hidden)};
}

// y[r][o] of the tile's outputs, from prepared rows.
void Product(const StageBuffers& b, const Tile& tile, const std::byte* bytes, const Prepared& x,
             float* y, size_t y_stride) {
  MatMul(tile.tensor->type, bytes, tile.outputs, tile.columns, x.rows + b.row_begin * x.stride,
         x.stride, b.row_end - b.row_begin, y + b.row_begin * y_stride, y_stride, b.next);
}

// The same from xn; a bias tile is added.
void XnProduct(const StageBuffers& b, const Tile& tile, const std::byte* bytes, float* y,
               size_t y_stride) {
  if (tile.bias) return AddBias(b, tile, bytes, y, y_stride);
  Product(b, tile, bytes, XnFor(b, tile.tensor->type), y, y_stride);
}

void NormTile(const StageBuffers& b, const Norm& norm, const Tile& tile, const std::byte* bytes) {
  const size_t hidden = b.model->hidden_size;
  float* weight = Floats(b, b.layout.weight);
  if (!tile.bias) {
    std::memcpy(weight, bytes, hidden * sizeof(float));
    if (norm.bias != nullptr) return;  // the bias comes with the next tile
  }
  const bool last = b.stage->kind == StageKind::kFinalNorm;
  const size_t float_bytes = PreparedRowBytes(ActivationForm::kFloat, hidden);
  const size_t q8_bytes = PreparedRowBytes(ActivationForm::kQ8, hidden);
  std::byte* q8 = b.xn + (b.forms.as_float ? RowsOf(b) * float_bytes : 0);
  float* row = Floats(b, b.layout.row);
  for (size_t r = b.row_begin; r < b.row_end; ++r) {
    const float* x = b.x + (last ? b.logit_row[r] : r) * hidden;
    if (norm.kind == NormKind::kRms) {
      RmsNorm(x, weight, norm.epsilon, hidden, row);
    } else {
      const auto* bias = tile.bias ? reinterpret_cast<const float*>(bytes) : nullptr;
      LayerNorm(x, weight, bias, norm.epsilon, hidden, row);
    }
    if (b.forms.as_float) {
      PrepareRow(ActivationForm::kFloat, row, hidden, b.xn + r * float_bytes);
    }
    if (b.forms.as_q8) PrepareRow(ActivationForm::kQ8, row, hidden, q8 + r * q8_bytes);
  }
}

// Queries go to [head][row][head_dim]: a tile is cut where a head ends.
void QueryTile(const StageBuffers& b, const Tile& tile, const std::byte* bytes) {
  const uint32_t head_dim = b.model->head_dim;
  const size_t row_bytes = tile.bias ? sizeof(float) : tile.bytes / tile.outputs;
  for (uint32_t done = 0; done < tile.outputs;) {
    const uint32_t output = tile.out_begin + done;
    const uint32_t head = output / head_dim;
    Tile part = tile;
    part.outputs = std::min(tile.outputs - done, (head + 1) * head_dim - output);
    float* q = b.q + size_t{head - b.stage->head_begin} * b.rows * head_dim + output % head_dim;
    const std::byte* from = bytes + done * row_bytes;
    XnProduct(b, part, from, q, head_dim);
    done += part.outputs;
  }
}

void QkvTile(const StageBuffers& b, const Tile& tile, const std::byte* bytes) {
  if (tile.operand == Operand::kQuery) return QueryTile(b, tile, bytes);
  const uint32_t first = KvHeadBegin(*b.model, *b.stage);
  const size_t stride = size_t{KvHeadEnd(*b.model, *b.stage) - first} * b.model->head_dim;
  float* y = Floats(b, tile.operand == Operand::kKey ? b.layout.keys : b.layout.values) +
             (tile.out_begin - size_t{first} * b.model->head_dim);
  XnProduct(b, tile, bytes, y, stride);
}

// x += outputs of the tile.
void Residual(const StageBuffers& b, const Tile& tile, const float* outputs) {
  for (size_t r = b.row_begin; r < b.row_end; ++r) {
    AddInPlace(b.x + r * b.model->hidden_size + tile.out_begin, outputs + r * tile.outputs,
               tile.outputs);
  }
}

// A tile of a matrix whose inputs are the prepared rows in the work buffer and whose outputs go to
// x.
void ProjectionTile(const StageBuffers& b, const Tile& tile, const std::byte* bytes) {
  if (tile.bias) {
    return AddBias(b, tile, bytes, b.x + tile.out_begin, b.model->hidden_size);
  }
  float* outputs = Floats(b, b.layout.outputs);
  const size_t stride = PreparedRowBytes(FormFor(tile.tensor->type), tile.columns);
  Product(b, tile, bytes, {b.work + b.layout.prepared, stride}, outputs, tile.outputs);
  Residual(b, tile, outputs);
}

void FfnTile(const StageBuffers& b, const Tile& tile, const std::byte* bytes) {
  const Layer& layer = b.model->layers[b.stage->layer];
  const size_t ffn = b.model->ffn_size;
  float* hidden = Floats(b, b.layout.hidden);
  float* gate = Floats(b, b.layout.gate);
  switch (tile.operand) {
    case Operand::kGate:
      return XnProduct(b, tile, bytes, gate, tile.outputs);
    case Operand::kUp: {
      float* up = hidden + tile.out_begin;
      XnProduct(b, tile, bytes, up, ffn);
      if (!tile.bias && layer.ffn_up.bias != nullptr) return;  // its bias comes with the next tile
      for (size_t r = b.row_begin; r < b.row_end; ++r) {
        if (b.model->activation == Activation::kSwiGlu) {
          SwiGlu(gate + r * tile.outputs, up + r * ffn, tile.outputs);
        } else {
          Gelu(up + r * ffn, tile.outputs);
        }
      }
      return;
    }
    default: {
      const ActivationForm form = FormFor(layer.ffn_down.tensor->type);
      const size_t stride = PreparedRowBytes(form, ffn);
      if (tile.out_begin == 0 && !tile.bias) {
        for (size_t r = b.row_begin; r < b.row_end; ++r) {
          PrepareRow(form, hidden + r * ffn, ffn, b.work + b.layout.prepared + r * stride);
        }
      }
      return ProjectionTile(b, tile, bytes);
    }
  }
}

// A key or value as the KV cache keeps it.
void StoreVector(const StageBuffers& b, const float* x, uint16_t* out) {
  const size_t n = b.model->head_dim;
  if (b.kv_type == KvType::kQ8_0) return QuantizeKv(x, n, out);
  FloatToHalf(x, n, out);
}

void RotateAndStore(const StageBuffers& b) {
  const Model& model = *b.model;
  const size_t head_dim = model.head_dim;
  const size_t pairs = model.rope.dimensions / 2;
  const uint32_t heads = b.stage->head_end - b.stage->head_begin;
  const auto rotate = [&](float* head, uint32_t row) {
    if (pairs == 0) return;
    ApplyRope(head, b.cosine + row * pairs, b.sine + row * pairs, pairs, model.rope.interleaved);
  };
  for (uint32_t h = 0; h < heads; ++h) {
    for (uint32_t r = 0; r < b.rows; ++r) rotate(b.q + (size_t{h} * b.rows + r) * head_dim, r);
  }
  const uint32_t first = KvHeadBegin(model, *b.stage);
  const uint32_t kv_heads = KvHeadEnd(model, *b.stage) - first;
  for (uint32_t h = 0; h < kv_heads; ++h) {
    for (uint32_t r = 0; r < b.rows; ++r) {
      const size_t from = (size_t{r} * kv_heads + h) * head_dim;
      float* key = Floats(b, b.layout.keys) + from;
      rotate(key, r);
      uint16_t* to = b.kv + (size_t{first + h - b.kv_head_begin} * b.rows + r) * 2 * head_dim;
      StoreVector(b, key, to);
      StoreVector(b, Floats(b, b.layout.values) + from, to + b.kv_vector);
    }
  }
  if (!b.stage->last_of_layer) return;
  // [kv head][row] -> [row][kv head], as the KV cache takes it.
  auto* rows = reinterpret_cast<uint16_t*>(b.work + b.layout.kv_rows);
  for (uint32_t r = 0; r < b.rows; ++r) {
    for (uint32_t h = 0; h < model.n_kv_heads; ++h) {
      std::memcpy(rows + (size_t{r} * model.n_kv_heads + h) * 2 * b.kv_vector,
                  b.kv + (size_t{h} * b.rows + r) * 2 * head_dim,
                  2 * b.kv_vector * sizeof(uint16_t));
    }
  }
}

void Concatenate(const StageBuffers& b) {
  const Model& model = *b.model;
  const size_t head_dim = model.head_dim;
  const size_t columns = size_t{model.n_heads} * head_dim;
  const ActivationForm form = FormFor(model.layers[b.stage->layer].wo.tensor->type);
  const size_t stride = PreparedRowBytes(form, columns);
  float* row = Floats(b, b.layout.row);
  for (uint32_t r = 0; r < b.rows; ++r) {
    for (uint32_t h = 0; h < model.n_heads; ++h) {
      std::memcpy(row + h * head_dim, b.att + (size_t{h} * b.rows + r) * head_dim,
                  head_dim * sizeof(float));
    }
    PrepareRow(form, row, columns, b.work + b.layout.prepared + r * stride);
  }
}

}  // namespace

void BeginStage(const StageBuffers& b) {
  if (b.stage->kind == StageKind::kOutput) Concatenate(b);
}

void RunTile(const StageBuffers& b, const Tile& tile, const std::byte* bytes) {
  switch (b.stage->kind) {
    case StageKind::kAttentionNorm:
      return NormTile(b, b.model->layers[b.stage->layer].attention_norm, tile, bytes);
    case StageKind::kFfnNorm:
      return NormTile(b, b.model->layers[b.stage->layer].ffn_norm, tile, bytes);
    case StageKind::kFinalNorm:
      return NormTile(b, b.model->output_norm, tile, bytes);
    case StageKind::kQkv:
      return QkvTile(b, tile, bytes);
    case StageKind::kOutput:
      return ProjectionTile(b, tile, bytes);
    case StageKind::kFfn:
      return FfnTile(b, tile, bytes);
    case StageKind::kLogits:
      return XnProduct(b, tile, bytes, Floats(b, b.layout.outputs), tile.outputs);
    case StageKind::kEmbed:
    case StageKind::kAttention:
    case StageKind::kSample:
      return;  // these have no tiles
  }
}

void EndStage(const StageBuffers& b) {
  if (b.stage->kind == StageKind::kQkv) RotateAndStore(b);
}

void EmbedRow(const Model& model, const std::byte* token_row, const std::byte* position_row,
              float* scratch, float* out) {
  const size_t hidden = model.hidden_size;
  DequantizeRow(model.token_embedding->type, token_row, hidden, out);
  if (position_row == nullptr) return;
  DequantizeRow(model.position_embedding->type, position_row, hidden, scratch);
  AddInPlace(out, scratch, hidden);
}

void RopeAngles(const Rope& rope, uint32_t position, float* cosine, float* sine) {
  for (size_t i = 0; i < rope.inverse_frequency.size(); ++i) {
    const double angle = double{rope.inverse_frequency[i]} * position;
    cosine[i] = static_cast<float>(std::cos(angle) * rope.magnitude);
    sine[i] = static_cast<float>(std::sin(angle) * rope.magnitude);
  }
}

}  // namespace thimble
