// Llama (arXiv:2302.13971) and what follows it: RMSNorm, rope on interleaved pairs, grouped-query
// attention, SwiGLU; biases where the file has them.
#include <string>

#include "daemon/model/arch_reader.h"
#include "daemon/model/architectures.h"
#include "daemon/model/rope_scaling.h"

namespace thimble {
namespace {

Result<Layer> ReadLayer(ArchReader& reader, const Model& model, uint32_t index, float epsilon) {
  const std::string block = "blk." + std::to_string(index) + ".";
  const uint64_t hidden = model.hidden_size;
  const uint64_t q_rows = uint64_t{model.n_heads} * model.head_dim;
  const uint64_t kv_rows = uint64_t{model.n_kv_heads} * model.head_dim;
  constexpr auto kBias = ArchReader::Bias::kOptional;
  Layer layer;
  THIMBLE_ASSIGN_OR_RETURN(layer.attention_norm,
                           reader.ReadNorm(NormKind::kRms, block + "attn_norm", hidden, epsilon));
  THIMBLE_ASSIGN_OR_RETURN(layer.wq, reader.ReadLinear(block + "attn_q", q_rows, hidden, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.wk, reader.ReadLinear(block + "attn_k", kv_rows, hidden, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.wv, reader.ReadLinear(block + "attn_v", kv_rows, hidden, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.wo,
                           reader.ReadLinear(block + "attn_output", hidden, q_rows, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_norm,
                           reader.ReadNorm(NormKind::kRms, block + "ffn_norm", hidden, epsilon));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_gate,
                           reader.ReadLinear(block + "ffn_gate", model.ffn_size, hidden, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_up,
                           reader.ReadLinear(block + "ffn_up", model.ffn_size, hidden, kBias));
  THIMBLE_ASSIGN_OR_RETURN(layer.ffn_down,
                           reader.ReadLinear(block + "ffn_down", hidden, model.ffn_size, kBias));
  return layer;
}

// Keys that some relatives of Llama set under its name and that change the computation.
Status RefuseVariants(const ArchReader& reader) {
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("expert_count", 0, "mixtures of experts"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("attention.sliding_window", 0, "sliding-window attention"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("attention.causal", 1, "attention that is not causal"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("attention.scale", 0, "a scale of attention of its own"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("attention.clamp_kqv", 0, "clamped queries and keys"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("attention.max_alibi_bias", 0, "ALiBi"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("embedding_scale", 1, "scaled embeddings"));
  THIMBLE_RETURN_IF_ERROR(reader.Refuse("residual_scale", 1, "scaled residuals"));
  return reader.Refuse("logit_scale", 1, "scaled logits");
}

}  // namespace

Status BuildLlama(ArchReader& reader, Model* model) {
  model->activation = Activation::kSwiGlu;
  THIMBLE_RETURN_IF_ERROR(RefuseVariants(reader));
  THIMBLE_RETURN_IF_ERROR(reader.ReadSizes(model));
  THIMBLE_ASSIGN_OR_RETURN(const double epsilon,
                           reader.Positive("attention.layer_norm_rms_epsilon"));
  THIMBLE_RETURN_IF_ERROR(reader.ReadTokenEmbedding(model));
  for (uint32_t i = 0; i < model->n_layers; ++i) {
    THIMBLE_ASSIGN_OR_RETURN(Layer layer,
                             ReadLayer(reader, *model, i, static_cast<float>(epsilon)));
    model->layers.push_back(layer);
  }
  THIMBLE_ASSIGN_OR_RETURN(model->output_norm,
                           reader.ReadNorm(NormKind::kRms, "output_norm", model->hidden_size,
                                           static_cast<float>(epsilon)));
  THIMBLE_ASSIGN_OR_RETURN(model->output, reader.ReadOutput(*model));
  // After the layers, whose shapes bound head_dim by the file's size.
  THIMBLE_ASSIGN_OR_RETURN(model->rope, ReadRope(reader, *model, /*interleaved=*/true));
  return {};
}

}  // namespace thimble
