#include "tests/model/vocab_file.h"

#include "tests/model/gguf_builder.h"

namespace thimble {

VocabFile::VocabFile() : builder_(std::make_shared<GgufBuilder>()) {}

VocabFile& VocabFile::SetString(std::string_view key, std::string_view value) {
  builder_->SetString(key, value);
  return *this;
}
VocabFile& VocabFile::SetUint(std::string_view key, uint32_t value) {
  builder_->SetUint(key, value);
  return *this;
}
VocabFile& VocabFile::SetBool(std::string_view key, bool value) {
  builder_->SetBool(key, value);
  return *this;
}
VocabFile& VocabFile::SetStrings(std::string_view key, const std::vector<std::string>& values) {
  builder_->SetStrings(key, values);
  return *this;
}
VocabFile& VocabFile::SetFloats(std::string_view key, const std::vector<float>& values) {
  builder_->SetFloats(key, values);
  return *this;
}
VocabFile& VocabFile::SetInts(std::string_view key, const std::vector<int32_t>& values) {
  builder_->SetInts(key, values);
  return *this;
}
VocabFile& VocabFile::Remove(std::string_view key) {
  builder_->Remove(key);
  return *this;
}
std::unique_ptr<RandomAccessFile> VocabFile::File() const { return builder_->File(); }

}  // namespace thimble
