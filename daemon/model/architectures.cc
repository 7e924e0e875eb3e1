#include "daemon/model/architectures.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/model/gguf_cursor.h"
#include "daemon/model/vocabulary.h"

namespace thimble {
namespace {

struct Architecture {
  std::string_view name;
  Status (*build)(ArchReader& reader, Model* model);
};

constexpr Architecture kArchitectures[] = {
    {"gpt2", BuildGpt2},
    {"llama", BuildLlama},
};

constexpr uint64_t kFingerprintTensorBytes = 4096;

Result<const Architecture*> FindArchitecture(const Gguf& gguf) {
  constexpr std::string_view kKey = "general.architecture";
  THIMBLE_ASSIGN_OR_RETURN(const std::string name, gguf.GetString(kKey));
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return UnimplementedError("key " + std::string(kKey) + ": \"" + Printable(name) +
                            "\"; thimble knows " + known);
}

// Options of the file as a whole that would make its tensors mean something else.
Status CheckFileOptions(const Gguf& gguf) {
  THIMBLE_ASSIGN_OR_RETURN(const uint64_t quantization,
                           gguf.GetUintOr("general.quantization_version", 2));
  if (quantization != 2) {
    return UnimplementedError("key general.quantization_version: " + std::to_string(quantization) +
                              "; thimble reads version 2");
  }
  THIMBLE_ASSIGN_OR_RETURN(const uint64_t parts, gguf.GetUintOr("split.count", 0));
  if (parts > 1) {
    return UnimplementedError("key split.count: one of " + std::to_string(parts) +
                              " files of a model; merge them into one");
  }
  return {};
}

class Hash {
 public:
  Hash() : state_(XXH3_createState()) {
    if (state_ != nullptr) XXH3_128bits_reset(state_);
  }
  ~Hash() { XXH3_freeState(state_); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;

  [[nodiscard]] bool ok() const { return state_ != nullptr; }
  void Update(const void* data, size_t bytes) { XXH3_128bits_update(state_, data, bytes); }
  [[nodiscard]] std::array<uint8_t, 16> Digest() const {
    XXH128_canonical_t canonical;  // big-endian
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_));
    std::array<uint8_t, 16> digest{};
    std::memcpy(digest.data(), canonical.digest, digest.size());
    return digest;
  }

 private:
  XXH3_state_t* const state_;
};

// Hashed in this order: the file's first data_offset bytes; its size as a little-endian uint64; the
// first 4 KiB (or less) of every tensor's data, in the file's order. Never change this: it names
// the model in the state directory.
Result<std::array<uint8_t, 16>> Fingerprint(RandomAccessFile& file, const Gguf& gguf) {
  Hash hash;
  if (!hash.ok()) return ResourceExhaustedError("fingerprint: no memory");
  std::vector<std::byte> buffer(GgufCursor::kBufferBytes);
  const auto add = [&](uint64_t offset, uint64_t bytes) -> Status {
    while (bytes > 0) {
      const auto part = static_cast<size_t>(std::min<uint64_t>(bytes, buffer.size()));
      THIMBLE_RETURN_IF_ERROR(file.ReadAt(offset, {buffer.data(), part}));
      hash.Update(buffer.data(), part);
      offset += part;
      bytes -= part;
    }
    return {};
  };
  THIMBLE_RETURN_IF_ERROR(add(0, gguf.data_offset));
  hash.Update(&gguf.file_bytes, sizeof gguf.file_bytes);
  for (const TensorInfo& tensor : gguf.tensors) {
    THIMBLE_RETURN_IF_ERROR(add(tensor.offset, std::min(tensor.bytes, kFingerprintTensorBytes)));
  }
  return hash.Digest();
}

// The vocabulary's tokens and the embedding's rows must be as many.
Status CheckVocabularySize(const Model& model) {
  constexpr std::string_view kKey = "tokenizer.ggml.tokens";
  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* const tokens,
                           model.gguf.FindArray(kKey, GgufType::kString));
  if (tokens == nullptr || tokens->count == model.vocab_size) return {};
  return InvalidArgumentError("key " + std::string(kKey) + ": " + std::to_string(tokens->count) +
                              " tokens, and tensor " + model.token_embedding->name + " has " +
                              std::to_string(model.vocab_size) + " rows");
}

Status Build(RandomAccessFile& file, Model* model) {
  THIMBLE_ASSIGN_OR_RETURN(const Architecture* const architecture, FindArchitecture(model->gguf));
  model->architecture = architecture->name;
  const std::string file_name = file.path().substr(file.path().find_last_of('/') + 1);
  THIMBLE_ASSIGN_OR_RETURN(model->name, model->gguf.GetStringOr("general.name", file_name));
  THIMBLE_RETURN_IF_ERROR(CheckFileOptions(model->gguf));
  ArchReader reader(file, model->gguf, model->architecture);
  THIMBLE_RETURN_IF_ERROR(architecture->build(reader, model));
  THIMBLE_RETURN_IF_ERROR(reader.CheckAllUsed());
  THIMBLE_RETURN_IF_ERROR(CheckVocabularySize(*model));
  THIMBLE_RETURN_IF_ERROR(ValidateVocabulary(file, model->gguf));
  THIMBLE_ASSIGN_OR_RETURN(model->fingerprint, Fingerprint(file, model->gguf));
  return {};
}

}  // namespace

Result<std::unique_ptr<Model>> LoadModel(RandomAccessFile& file) {
  auto model = std::make_unique<Model>();
  THIMBLE_ASSIGN_OR_RETURN(model->identity, file.Identity());
  THIMBLE_ASSIGN_OR_RETURN(model->gguf, ParseGguf(file));
  if (Status status = Build(file, model.get()); !status.ok()) {
    return Status(status.code(), "load " + file.path() + ": " + status.message());
  }
  THIMBLE_ASSIGN_OR_RETURN(const FileIdentity now, file.Identity());
  if (now != model->identity) {
    return FailedPreconditionError("load " + file.path() + ": the file changed while it was read");
  }
  return model;
}

}  // namespace thimble
