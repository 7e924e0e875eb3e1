#include "tests/plan/fake_model.h"

#include <string>

namespace thimble {
namespace {

// Appends tensors one behind the other, aligned to 32 bytes as in a file.
class TensorMaker {
 public:
  explicit TensorMaker(Gguf* gguf) : gguf_(*gguf) { gguf_.tensors.reserve(4096); }

  const TensorInfo* Add(const std::string& name, TensorType type, uint64_t columns, uint64_t rows) {
    TensorInfo tensor;
    tensor.name = name;
    tensor.type = type;
    tensor.columns = columns;
    tensor.rows = rows;
    tensor.offset = end_;
    tensor.bytes = rows * RowBytes(type, columns);
    end_ = (end_ + tensor.bytes + 31) / 32 * 32;
    gguf_.tensors.push_back(tensor);
    return &gguf_.tensors.back();
  }

 private:
  Gguf& gguf_;
  uint64_t end_ = 1'000'032;
};

}  // namespace

FakeShape SmolShape() {
  FakeShape shape;
  shape.n_layers = 30;
  shape.n_heads = 9;
  shape.n_kv_heads = 3;
  shape.ffn_size = 1536;
  shape.vocab_size = 49152;
  shape.gated = true;
  return shape;
}

std::unique_ptr<Model> MakeFakeModel(const FakeShape& shape) {
  auto model = std::make_unique<Model>();
  TensorMaker make(&model->gguf);
  const uint64_t d = uint64_t{shape.n_heads} * shape.head_dim;
  const uint64_t kv = uint64_t{shape.n_kv_heads} * shape.head_dim;
  model->name = "fake";
  model->architecture = shape.gated ? "llama" : "gpt2";
  model->hidden_size = d;
  model->n_layers = shape.n_layers;
  model->n_heads = shape.n_heads;
  model->n_kv_heads = shape.n_kv_heads;
  model->head_dim = shape.head_dim;
  model->ffn_size = shape.ffn_size;
  model->context_tokens = shape.context_tokens;
  model->vocab_size = shape.vocab_size;
  model->activation = shape.gated ? Activation::kSwiGlu : Activation::kGelu;
  const auto matrix = [&](const std::string& name, uint64_t columns, uint64_t rows) {
    Linear linear;
    linear.tensor = make.Add(name + ".weight", shape.type, columns, rows);
    linear.rows = rows;
    if (!shape.gated) linear.bias = make.Add(name + ".bias", TensorType::kF32, rows, 1);
    return linear;
  };
  const auto norm = [&](const std::string& name) {
    Norm result;
    result.kind = shape.gated ? NormKind::kRms : NormKind::kLayer;
    result.weight = make.Add(name + ".weight", TensorType::kF32, d, 1);
    if (!shape.gated) result.bias = make.Add(name + ".bias", TensorType::kF32, d, 1);
    return result;
  };
  model->token_embedding = make.Add("token_embd.weight", shape.type, d, shape.vocab_size);
  if (!shape.gated) {
    model->position_embedding =
        make.Add("position_embd.weight", TensorType::kF32, d, shape.context_tokens);
  }
  for (uint32_t l = 0; l < shape.n_layers; ++l) {
    const std::string prefix = "blk." + std::to_string(l) + ".";
    Layer layer;
    layer.attention_norm = norm(prefix + "attn_norm");
    layer.wq = matrix(prefix + "attn_q", d, d);
    layer.wk = matrix(prefix + "attn_k", d, kv);
    layer.wv = matrix(prefix + "attn_v", d, kv);
    layer.wo = matrix(prefix + "attn_output", d, d);
    layer.ffn_norm = norm(prefix + "ffn_norm");
    if (shape.gated) layer.ffn_gate = matrix(prefix + "ffn_gate", d, shape.ffn_size);
    layer.ffn_up = matrix(prefix + "ffn_up", d, shape.ffn_size);
    layer.ffn_down = matrix(prefix + "ffn_down", shape.ffn_size, d);
    model->layers.push_back(layer);
  }
  model->output_norm = norm("output_norm");
  model->output.tensor = shape.tied ? model->token_embedding
                                    : make.Add("output.weight", shape.type, d, shape.vocab_size);
  model->output.rows = shape.vocab_size;
  return model;
}

}  // namespace thimble
