// Writes GGUF files for tests, right or wrong in any place: every count, length, offset and type
// can be told to lie. Data is laid out tensor after tensor, aligned, with nothing behind the last.
// Called by: tests only. Memory: the file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/gguf.h"
#include "storage/base/file.h"

namespace thimble {

// The bytes of a number as the file has them.
template <typename T>
std::string Bytes(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
// A length and the text.
std::string StringBytes(std::string_view text);
// An array's value: element type, count, elements.
std::string ArrayBytes(GgufType element_type, uint64_t count, const std::string& elements);
std::string StringArrayBytes(const std::vector<std::string>& texts);

class GgufBuilder {
 public:
  struct Key {
    std::string name;
    uint32_t type = 0;
    std::string value;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;
    uint32_t type = 0;
    std::string data;
    std::optional<uint64_t> offset = std::nullopt;  // of the data; otherwise where it is put
    std::optional<uint32_t> n_dims = std::nullopt;  // otherwise as many as there are
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data, whatever general.alignment says
  std::optional<uint64_t> tensor_count;
  std::optional<uint64_t> key_count;
  std::vector<Key> keys;
  std::vector<Tensor> tensors;

  // Replaces the key of that name or adds it.
  GgufBuilder& Set(std::string_view name, GgufType type, std::string value);
  GgufBuilder& SetUint(std::string_view name, uint32_t value);
  GgufBuilder& SetFloat(std::string_view name, float value);
  GgufBuilder& SetBool(std::string_view name, bool value);
  GgufBuilder& SetString(std::string_view name, std::string_view value);
  GgufBuilder& SetStrings(std::string_view name, const std::vector<std::string>& values);
  GgufBuilder& SetFloats(std::string_view name, const std::vector<float>& values);
  GgufBuilder& SetInts(std::string_view name, const std::vector<int32_t>& values);
  GgufBuilder& Remove(std::string_view name);

  // The named tensor, which must be there.
  Tensor& At(std::string_view name);
  // Replaces the tensor of that name or adds it: float32 numbers, a little different from each
  // other.
  GgufBuilder& SetTensor(std::string_view name, const std::vector<uint64_t>& dimensions);
  GgufBuilder& RemoveTensor(std::string_view name);

  // Everything before the data, without padding.
  [[nodiscard]] std::string Header() const;
  [[nodiscard]] std::string Build() const;
  [[nodiscard]] std::unique_ptr<RandomAccessFile> File() const;
};

std::unique_ptr<RandomAccessFile> FileOf(std::string_view bytes);

}  // namespace thimble
