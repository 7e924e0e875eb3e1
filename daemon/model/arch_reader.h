// What every architecture file needs to turn a Gguf into a Model: keys under the architecture's
// prefix, with their ranges checked, and tensors by name, with their shapes checked. It remembers
// which tensors were asked for, so that a file with others (norms or biases of a variant that this
// architecture's code would leave out) is refused instead of being run wrongly. Called by:
// arch_*.cc, architectures.cc. Memory: one byte a tensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"
#include "storage/base/file.h"
#include "storage/base/status.h"

namespace thimble {

class ArchReader {
 public:
  // Both must outlive the reader, and the pointers it returns are into `gguf`.
  ArchReader(RandomAccessFile& file, const Gguf& gguf, std::string prefix)
      : file_(file), gguf_(gguf), prefix_(std::move(prefix)), used_(gguf.tensors.size()) {}

  [[nodiscard]] const Gguf& gguf() const { return gguf_; }
  // "llama.block_count" for "block_count".
  [[nodiscard]] std::string Key(std::string_view suffix) const;

  // Keys. INVALID_ARGUMENT where the key is missing or out of range, UNIMPLEMENTED for a value a
  // layer. A number from 1 to INT32_MAX.
  [[nodiscard]] Result<uint32_t> Count(std::string_view suffix) const;
  [[nodiscard]] Result<uint32_t> CountOr(std::string_view suffix, uint32_t fallback) const;
  // A finite number above 0.
  [[nodiscard]] Result<double> Positive(std::string_view suffix) const;
  [[nodiscard]] Result<double> PositiveOr(std::string_view suffix, double fallback) const;
  // UNIMPLEMENTED, with `why`, where the key is there with any other value than `neutral`.
  [[nodiscard]] Status Refuse(std::string_view suffix, double neutral, std::string_view why) const;

  // block_count, context_length, embedding_length, feed_forward_length and the attention heads,
  // checked against one another and the file.
  Status ReadSizes(Model* model) const;

  // Tensors. INVALID_ARGUMENT with both shapes where one is missing or has another; UNIMPLEMENTED
  // for one of more than two dimensions.
  Result<const TensorInfo*> Matrix(std::string_view name, uint64_t rows, uint64_t columns);
  // Float32 only: vectors are few bytes, and kernels add them as they are.
  Result<const TensorInfo*> Vector(std::string_view name, uint64_t length);
  Result<const TensorInfo*> OptionalVector(std::string_view name, uint64_t length);  // or nullptr

  enum class Bias : uint8_t { kRequired, kOptional };
  // "STEM.weight" and "STEM.bias".
  Result<Linear> ReadLinear(std::string_view stem, uint64_t rows, uint64_t columns, Bias bias);
  Result<Norm> ReadNorm(NormKind kind, std::string_view stem, uint64_t length, float epsilon);
  // output.weight, or the token embedding where the file ties them.
  Result<Linear> ReadOutput(const Model& model);
  // token_embd.weight; its rows become the vocabulary's size.
  Status ReadTokenEmbedding(Model* model);

  // A float32 vector's values, from the file.
  Result<std::vector<float>> ReadValues(const TensorInfo& tensor);

  // UNIMPLEMENTED, naming it, where a tensor was never asked for.
  [[nodiscard]] Status CheckAllUsed() const;

 private:
  const TensorInfo* Use(std::string_view name);

  RandomAccessFile& file_;
  const Gguf& gguf_;
  const std::string prefix_;
  std::vector<bool> used_;  // [gguf.tensors]
};

}  // namespace thimble
