#include "tests/model/gguf_builder.h"

#include <algorithm>
#include <cstdlib>
#include <span>
#include <utility>

#include "storage/base/bytes.h"

namespace thimble {

std::string StringBytes(std::string_view text) {
  return Bytes<uint64_t>(text.size()) + std::string(text);
}

std::string ArrayBytes(GgufType element_type, uint64_t count, const std::string& elements) {
  return Bytes(static_cast<uint32_t>(element_type)) + Bytes(count) + elements;
}

std::string StringArrayBytes(const std::vector<std::string>& texts) {
  std::string elements;
  for (const std::string& text : texts) elements += StringBytes(text);
  return ArrayBytes(GgufType::kString, texts.size(), elements);
}

GgufBuilder& GgufBuilder::Set(std::string_view name, GgufType type, std::string value) {
  Key key{std::string(name), static_cast<uint32_t>(type), std::move(value)};
  const auto found = std::find_if(keys.begin(), keys.end(),
                                  [&](const Key& candidate) { return candidate.name == name; });
  if (found != keys.end()) {
    *found = std::move(key);
  } else {
    keys.push_back(std::move(key));
  }
  return *this;
}

GgufBuilder& GgufBuilder::SetUint(std::string_view name, uint32_t value) {
  return Set(name, GgufType::kUint32, Bytes(value));
}

GgufBuilder& GgufBuilder::SetFloat(std::string_view name, float value) {
  return Set(name, GgufType::kFloat32, Bytes(value));
}

GgufBuilder& GgufBuilder::SetBool(std::string_view name, bool value) {
  return Set(name, GgufType::kBool, Bytes<uint8_t>(value ? 1 : 0));
}

GgufBuilder& GgufBuilder::SetString(std::string_view name, std::string_view value) {
  return Set(name, GgufType::kString, StringBytes(value));
}

GgufBuilder& GgufBuilder::SetStrings(std::string_view name,
                                     const std::vector<std::string>& values) {
  return Set(name, GgufType::kArray, StringArrayBytes(values));
}

GgufBuilder& GgufBuilder::SetFloats(std::string_view name, const std::vector<float>& values) {
  std::string elements;
  for (const float value : values) elements += Bytes(value);
  return Set(name, GgufType::kArray, ArrayBytes(GgufType::kFloat32, values.size(), elements));
}

GgufBuilder& GgufBuilder::SetInts(std::string_view name, const std::vector<int32_t>& values) {
  std::string elements;
  for (const int32_t value : values) elements += Bytes(value);
  return Set(name, GgufType::kArray, ArrayBytes(GgufType::kInt32, values.size(), elements));
}

GgufBuilder& GgufBuilder::Remove(std::string_view name) {
  std::erase_if(keys, [&](const Key& key) { return key.name == name; });
  return *this;
}

GgufBuilder::Tensor& GgufBuilder::At(std::string_view name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const Tensor& tensor) { return tensor.name == name; });
  if (found == tensors.end()) std::abort();  // The test itself is wrong.
  return *found;
}

GgufBuilder& GgufBuilder::SetTensor(std::string_view name,
                                    const std::vector<uint64_t>& dimensions) {
  Tensor tensor{std::string(name), dimensions, static_cast<uint32_t>(TensorType::kF32), ""};
  uint64_t elements = 1;
  for (const uint64_t dimension : dimensions) elements *= dimension;
  for (uint64_t i = 0; i < elements; ++i) {
    tensor.data += Bytes(0.01F * static_cast<float>((i * 7 + name.size()) % 31) + 0.1F);
  }
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const Tensor& candidate) { return candidate.name == name; });
  if (found != tensors.end()) {
    *found = std::move(tensor);
  } else {
    tensors.push_back(std::move(tensor));
  }
  return *this;
}

GgufBuilder& GgufBuilder::RemoveTensor(std::string_view name) {
  std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  return *this;
}

std::string GgufBuilder::Header() const {
  std::string out = magic + Bytes(version) + Bytes(tensor_count.value_or(tensors.size())) +
                    Bytes(key_count.value_or(keys.size()));
  for (const Key& key : keys) out += StringBytes(key.name) + Bytes(key.type) + key.value;
  uint64_t end = 0;  // of the data so far
  for (const Tensor& tensor : tensors) {
    const uint64_t offset = AlignUp(end, alignment);
    end = offset + tensor.data.size();
    out += StringBytes(tensor.name);
    out += Bytes(tensor.n_dims.value_or(static_cast<uint32_t>(tensor.dimensions.size())));
    for (const uint64_t dimension : tensor.dimensions) out += Bytes(dimension);
    out += Bytes(tensor.type) + Bytes(tensor.offset.value_or(offset));
  }
  return out;
}

std::string GgufBuilder::Build() const {
  std::string out = Header();
  for (const Tensor& tensor : tensors) {
    out.resize(AlignUp(out.size(), alignment));
    out += tensor.data;
  }
  return out;
}

std::unique_ptr<RandomAccessFile> GgufBuilder::File() const { return FileOf(Build()); }

std::unique_ptr<RandomAccessFile> FileOf(std::string_view bytes) {
  return MemoryFile(std::as_bytes(std::span(bytes.data(), bytes.size())), "dir/memory.gguf");
}

}  // namespace thimble
