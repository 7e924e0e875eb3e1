// GPT-2 (Radford et al. 2019): learned positions, LayerNorm with bias, one fused matrix for query,
// key and value, GELU, biases everywhere but in the output.
#include <string>

#include "daemon/model/arch_reader.h"
#include "daemon/model/architectures.h"

namespace thimble {
namespace {

// Rows [row_begin, row_begin + rows) of a fused matrix; the bias is indexed by the same rows.
Linear Part(const Linear& fused, uint64_t row_begin, uint64_t rows) {
  Linear part = fused;
  part.row_begin = row_begin;
  part.rows = rows;
  return part;
}

Result<Layer> ReadLayer(ArchReader& reader, const Model& model, uint32_t index, float epsilon) {
  const std::string block = "blk." + std::to_string(index) + ".";
  const uint64_t hidden = model.hidden_size;
  const uint64_t q_rows = uint64_t{model.n_heads} * model.head_dim;
  const uint64_t kv_rows = uint64_t{model.n_kv_heads} * model.head_dim;
  constexpr auto kBias = ArchReader::Bias::kRequired;
  Layer layer;
  THIMBLE_ASSIGN_OR_RETURN(layer.attention_norm,
                           reader.ReadNorm(NormKind::kLayer, block + "attn_norm", hidden, epsilon));
  THIMBLE_ASSIGN_OR_RETURN(
      const Linear qkv, reader.ReadLinear(block + "attn_qkv", q_rows + 2 * kv_rows, hidden, kBias));
  layer.wq = Part(qkv, 0, q_rows);
  layer.wk = Part(qkv, q_rows, kv_rows);
  layer.wv = Part(qkv, q_rows + kv_rows, kv_rows);
  THIMBLE_ASSIGN_OR_RETURN(layer.wo,
                           reader.ReadLinear(block + "attn_output", hidden, q_rows, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_norm,
                           reader.ReadNorm(NormKind::kLayer, block + "ffn_norm", hidden, epsilon));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_up,
                           reader.ReadLinear(block + "ffn_up", model.ffn_size, hidden, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_down,
                           reader.ReadLinear(block + "ffn_down", hidden, model.ffn_size, kBias));
  return layer;
}

}  // namespace

Status BuildGpt2(ArchReader& reader, Model* model) {
  model->activation = Activation::kGelu;
  THIMBLE_RETURN_IF_ERROR(reader.ReadSizes(model));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("expert_count", 0, "mixtures of experts"));
  THIMBLE_ASSIGN_OR_RETURN(const double epsilon, reader.Positive("attention.layer_norm_epsilon"));
  THIMBLE_RETURN_IF_ERROR(reader.ReadTokenEmbedding(model));
  THIMBLE_ASSIGN_OR_RETURN(
      model->position_embedding,
      reader.Matrix("position_embd.weight", model->context_tokens, model->hidden_size));
  for (uint32_t i = 0; i < model->n_layers; ++i) {
    THIMBLE_ASSIGN_OR_RETURN(Layer layer,
                             ReadLayer(reader, *model, i, static_cast<float>(epsilon)));
    model->layers.push_back(layer);
  }
  THIMBLE_ASSIGN_OR_RETURN(model->output_norm,
                           reader.ReadNorm(NormKind::kLayer, "output_norm", model->hidden_size,
                                           static_cast<float>(epsilon)));
  THIMBLE_ASSIGN_OR_RETURN(model->output, reader.ReadOutput(*model));
  return {};
}

}  // namespace thimble
