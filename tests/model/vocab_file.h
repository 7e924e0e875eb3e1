// A vocabulary as a GGUF file without tensors, for the tokenizer tests. Hides GgufBuilder, whose
// Bytes is another name than storage/lmdb.h's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/file.h"

namespace thimble {

class GgufBuilder;

class VocabFile {
 public:
  VocabFile();
  VocabFile& SetString(std::string_view key, std::string_view value);
  VocabFile& SetUint(std::string_view key, uint32_t value);
  VocabFile& SetBool(std::string_view key, bool value);
  VocabFile& SetStrings(std::string_view key, const std::vector<std::string>& values);
  VocabFile& SetFloats(std::string_view key, const std::vector<float>& values);
  VocabFile& SetInts(std::string_view key, const std::vector<int32_t>& values);
  VocabFile& Remove(std::string_view key);
  [[nodiscard]] std::unique_ptr<RandomAccessFile> File() const;

 private:
  std::shared_ptr<GgufBuilder> builder_;  // a copy of a VocabFile is the same file
};

}  // namespace thimble
