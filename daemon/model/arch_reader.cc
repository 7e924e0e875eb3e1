#include "daemon/model/arch_reader.h"

#include <cmath>
#include <span>
#include <utility>

#include "daemon/model/gguf_cursor.h"

namespace thimble {
namespace {

// As GGUF writes shapes: columns first.
std::string Shape(const TensorInfo& tensor) {
  std::string text = "[" + std::to_string(tensor.columns) + ", " + std::to_string(tensor.rows);
  if (tensor.depth > 1) text += ", " + std::to_string(tensor.depth);
  return text + "]";
}

Status TensorError(std::string_view name, const std::string& what) {
  return InvalidArgumentError("tensor " + Printable(name) + ": " + what);
}

Status CheckShape(const TensorInfo& tensor, uint64_t rows, uint64_t columns) {
  if (tensor.depth != 1) {
    return UnimplementedError("tensor " + Printable(tensor.name) + ": shape " + Shape(tensor) +
                              ": more than two dimensions");
  }
  if (tensor.rows == rows && tensor.columns == columns) return {};
  return TensorError(tensor.name, "shape " + Shape(tensor) + ", expected [" +
                                      std::to_string(columns) + ", " + std::to_string(rows) + "]");
}

// A key's value as a number, whatever its type; false for strings and arrays.
bool AsNumber(const GgufValue& value, double* number) {
  return std::visit(
      [number](const auto& held) {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(held)>>) {
          *number = static_cast<double>(held);
          return true;
        } else {
          return false;
        }
      },
      value);
}

}  // namespace

std::string ArchReader::Key(std::string_view suffix) const {
  return prefix_ + "." + std::string(suffix);
}

Result<uint32_t> ArchReader::Count(std::string_view suffix) const {
  const std::string key = Key(suffix);
  if (const auto found = gguf_.metadata.find(key);
      found != gguf_.metadata.end() && std::holds_alternative<GgufArray>(found->second)) {
    return UnimplementedError("key " + key + ": a value for each layer; thimble reads one for all");
  }
  THIMBLE_ASSIGN_OR_RETURN(const uint64_t number, gguf_.GetUint(key));
  if (number < 1 || number > INT32_MAX) {
    return InvalidArgumentError("key " + key + ": " + std::to_string(number) + ", expected 1 to " +
                                std::to_string(INT32_MAX));
  }
  return static_cast<uint32_t>(number);
}

Result<uint32_t> ArchReader::CountOr(std::string_view suffix, uint32_t fallback) const {
  if (!gguf_.metadata.contains(Key(suffix))) return fallback;
  return Count(suffix);
}

Result<double> ArchReader::Positive(std::string_view suffix) const {
  const std::string key = Key(suffix);
  THIMBLE_ASSIGN_OR_RETURN(const double number, gguf_.GetFloat(key));
  if (!std::isfinite(number) || number <= 0) {
    return InvalidArgumentError("key " + key + ": " + std::to_string(number) +
                                ", expected a finite number above 0");
  }
  return number;
}

Result<double> ArchReader::PositiveOr(std::string_view suffix, double fallback) const {
  if (!gguf_.metadata.contains(Key(suffix))) return fallback;
  return Positive(suffix);
}

Status ArchReader::Refuse(std::string_view suffix, double neutral, std::string_view why) const {
  const std::string key = Key(suffix);
  const auto found = gguf_.metadata.find(key);
  if (found == gguf_.metadata.end()) return {};
  double number = 0;
  const bool is_number = AsNumber(found->second, &number);
  if (is_number && number == neutral) return {};
  return UnimplementedError("key " + key + ": " + (is_number ? std::to_string(number) + ": " : "") +
                            std::string(why));
}

Status ArchReader::ReadSizes(Model* model) const {
  THIMBLE_ASSIGN_OR_RETURN(model->n_layers, Count("block_count"));
  // A layer has several tensors of its own; this bounds what is reserved for layers.
  if (model->n_layers > gguf_.tensors.size()) {
    return InvalidArgumentError("key " + Key("block_count") + ": " +
                                std::to_string(model->n_layers) + " layers in a file of " +
                                std::to_string(gguf_.tensors.size()) + " tensors");
  }
  THIMBLE_ASSIGN_OR_RETURN(model->context_tokens, Count("context_length"));
  THIMBLE_ASSIGN_OR_RETURN(model->hidden_size, Count("embedding_length"));
  THIMBLE_ASSIGN_OR_RETURN(model->ffn_size, Count("feed_forward_length"));
  THIMBLE_ASSIGN_OR_RETURN(model->n_heads, Count("attention.head_count"));
  THIMBLE_ASSIGN_OR_RETURN(model->n_kv_heads, CountOr("attention.head_count_kv", model->n_heads));
  if (model->n_heads % model->n_kv_heads != 0) {
    return InvalidArgumentError("key " + Key("attention.head_count_kv") + ": " +
                                std::to_string(model->n_kv_heads) + " does not divide the " +
                                std::to_string(model->n_heads) + " of " +
                                Key("attention.head_count"));
  }
  if (!gguf_.metadata.contains(Key("attention.key_length"))) {
    if (model->hidden_size % model->n_heads != 0) {
      return InvalidArgumentError("key " + Key("embedding_length") + ": " +
                                  std::to_string(model->hidden_size) + " is not divisible by the " +
                                  std::to_string(model->n_heads) + " of " +
                                  Key("attention.head_count"));
    }
    model->head_dim = static_cast<uint32_t>(model->hidden_size / model->n_heads);
  } else {
    THIMBLE_ASSIGN_OR_RETURN(model->head_dim, Count("attention.key_length"));
  }
  return Refuse("attention.value_length", model->head_dim,
                "heads whose values are not as long as their keys");
}

const TensorInfo* ArchReader::Use(std::string_view name) {
  const TensorInfo* tensor = gguf_.FindTensor(name);
  if (tensor != nullptr) used_[static_cast<size_t>(tensor - gguf_.tensors.data())] = true;
  return tensor;
}

Result<const TensorInfo*> ArchReader::Matrix(std::string_view name, uint64_t rows,
                                             uint64_t columns) {
  const TensorInfo* tensor = Use(name);
  if (tensor == nullptr) return TensorError(name, "missing");
  THIMBLE_RETURN_IF_ERROR(CheckShape(*tensor, rows, columns));
  return tensor;
}

Result<const TensorInfo*> ArchReader::Vector(std::string_view name, uint64_t length) {
  THIMBLE_ASSIGN_OR_RETURN(const TensorInfo* const tensor, Matrix(name, 1, length));
  if (tensor->type != TensorType::kF32) {
    return UnimplementedError("tensor " + Printable(name) + ": type " +
                              std::string(Traits(tensor->type).name) +
                              "; thimble reads norms and biases in F32");
  }
  return tensor;
}

Result<const TensorInfo*> ArchReader::OptionalVector(std::string_view name, uint64_t length) {
  if (gguf_.FindTensor(name) == nullptr) return static_cast<const TensorInfo*>(nullptr);
  return Vector(name, length);
}

Result<Linear> ArchReader::ReadLinear(std::string_view stem, uint64_t rows, uint64_t columns,
                                      Bias bias) {
  const std::string name(stem);
  Linear linear;
  linear.rows = rows;
  THIMBLE_ASSIGN_OR_RETURN(linear.tensor, Matrix(name + ".weight", rows, columns));
  if (bias == Bias::kRequired) {
    THIMBLE_ASSIGN_OR_RETURN(linear.bias, Vector(name + ".bias", rows));
  } else {
    THIMBLE_ASSIGN_OR_RETURN(linear.bias, OptionalVector(name + ".bias", rows));
  }
  return linear;
}

Result<Norm> ArchReader::ReadNorm(NormKind kind, std::string_view stem, uint64_t length,
                                  float epsilon) {
  const std::string name(stem);
  Norm norm;
  norm.kind = kind;
  norm.epsilon = epsilon;
  THIMBLE_ASSIGN_OR_RETURN(norm.weight, Vector(name + ".weight", length));
  if (kind == NormKind::kLayer) {
    THIMBLE_ASSIGN_OR_RETURN(norm.bias, Vector(name + ".bias", length));
  }
  return norm;
}

Result<Linear> ArchReader::ReadOutput(const Model& model) {
  Linear output;
  output.tensor = model.token_embedding;
  output.rows = model.vocab_size;
  if (gguf_.FindTensor("output.weight") != nullptr) {
    THIMBLE_ASSIGN_OR_RETURN(output.tensor,
                             Matrix("output.weight", model.vocab_size, model.hidden_size));
  }
  return output;
}

Status ArchReader::ReadTokenEmbedding(Model* model) {
  constexpr std::string_view kName = "token_embd.weight";
  const TensorInfo* tensor = gguf_.FindTensor(kName);
  const uint64_t rows = tensor != nullptr ? tensor->rows : 0;
  THIMBLE_ASSIGN_OR_RETURN(model->token_embedding, Matrix(kName, rows, model->hidden_size));
  if (rows > INT32_MAX) return TensorError(kName, std::to_string(rows) + " rows");
  model->vocab_size = static_cast<uint32_t>(rows);
  return {};
}

Result<std::vector<float>> ArchReader::ReadValues(const TensorInfo& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.columns));
  THIMBLE_RETURN_IF_ERROR(
      InContext("tensor", tensor.name,
                file_.ReadAt(tensor.offset, std::as_writable_bytes(std::span(values)))));
  return values;
}

Status ArchReader::CheckAllUsed() const {
  for (size_t i = 0; i < used_.size(); ++i) {
    if (!used_[i]) {
      return UnimplementedError("tensor " + Printable(gguf_.tensors[i].name) +
                                ": not one that thimble knows in architecture " + prefix_);
    }
  }
  return {};
}

}  // namespace thimble
