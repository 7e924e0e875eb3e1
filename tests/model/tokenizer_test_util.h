// For the tokenizer tests: vocabularies written as GGUF files, and a tokenizer with its own
// environment.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/model/byte_alphabet.h"
#include "daemon/model/tokenizer.h"
#include "tests/model/vocab_file.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {

// A file's vocabulary with its index in a temporary directory.
class TokenizerUnderTest {
 public:
  explicit TokenizerUnderTest(std::unique_ptr<RandomAccessFile> file, uint32_t padding = 0)
      : file_(std::move(file)), env_(MustOpen(dir_.path() + "/cache", 64 << 20)) {
    Result<Gguf> gguf = ParseGguf(*file_);
    EXPECT_TRUE(gguf.ok()) << gguf.status().ToString();
    if (gguf.ok()) model_.gguf = std::move(gguf).value();
    const auto tokens = model_.gguf.FindArray("tokenizer.ggml.tokens", GgufType::kString);
    if (tokens.ok() && *tokens != nullptr) {
      model_.vocab_size = static_cast<uint32_t>((*tokens)->count) + padding;
    }
    auto index = VocabIndex::Open(*env_, model_.fingerprint);
    EXPECT_TRUE(index.ok()) << index.status().ToString();
    if (index.ok()) index_ = std::move(index).value();
  }

  // Opens, or opens again.
  Status Open() {
    THIMBLE_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Open(model_, *file_, *index_));
    return {};
  }
  Model& model() { return model_; }
  RandomAccessFile& file() { return *file_; }
  VocabIndex& index() { return *index_; }
  Tokenizer& operator*() { return *tokenizer_; }
  Tokenizer* operator->() { return tokenizer_.get(); }

  // Without BOS and EOS.
  std::vector<TokenId> Ids(std::string_view text, bool parse_special = false) {
    return IdsWith(text, {.add_special = false, .parse_special = parse_special});
  }
  std::vector<TokenId> IdsWith(std::string_view text, const EncodeOptions& options) {
    Result<std::vector<TokenId>> ids = tokenizer_->Encode(text, options);
    EXPECT_TRUE(ids.ok()) << ids.status().ToString();
    return ids.ok() ? std::move(ids).value() : std::vector<TokenId>{-1};
  }
  // What Decode makes of Encode with the model's own BOS and EOS.
  std::string RoundTrip(std::string_view text) {
    Result<std::string> back = tokenizer_->Decode(IdsWith(text, {}));
    EXPECT_TRUE(back.ok()) << back.status().ToString();
    return back.ok() ? std::move(back).value() : "not decoded";
  }

 private:
  TempDir dir_;
  std::unique_ptr<RandomAccessFile> file_;
  std::unique_ptr<LmdbEnv> env_;
  Model model_;
  std::unique_ptr<VocabIndex> index_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

inline std::unique_ptr<RandomAccessFile> BuiltInFile() {
  auto file = OpenFile(THIMBLE_SOURCE_DIR "/daemon/model/builtin/thimble-stories-q8_0.gguf");
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  return file.ok() ? std::move(file).value() : nullptr;
}

// A "gpt2" vocabulary: the 256 bytes in order (ids 0 to 255), then `more` with their kinds.
inline VocabFile ByteLevelVocab(const std::string& pre, const std::vector<std::string>& more,
                                const std::vector<int32_t>& kinds,
                                const std::vector<std::string>& merges) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    AppendAlphabetChar(static_cast<uint8_t>(byte), &tokens.emplace_back());
  }
  tokens.insert(tokens.end(), more.begin(), more.end());
  std::vector<int32_t> all_kinds(256, 1);
  all_kinds.insert(all_kinds.end(), kinds.begin(), kinds.end());
  VocabFile builder;
  builder.SetString("general.architecture", "gpt2")
      .SetString("tokenizer.ggml.model", "gpt2")
      .SetString("tokenizer.ggml.pre", pre)
      .SetStrings("tokenizer.ggml.tokens", tokens)
      .SetInts("tokenizer.ggml.token_type", all_kinds)
      .SetStrings("tokenizer.ggml.merges", merges);
  return builder;
}

// Random bytes, a third of them parts of valid characters, spaces and letters.
inline std::string RandomBytes(uint64_t* state, size_t max_bytes) {
  const auto next = [state] {  // Knuth's MMIX generator
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<uint32_t>(*state >> 33);
  };
  static const std::vector<std::string> kParts = {
      " ", "  ",           "a",      "the", "\n",       "1",       "é", "漢",
      "😀", "\xE2\x96\x81", "<0x41>", "'s",  "\xE2\x96", "\xF0\x9F"};
  std::string text;
  const size_t n = next() % max_bytes;
  while (text.size() < n) {
    if (next() % 3 != 0) {
      text += kParts[next() % kParts.size()];
    } else {
      text += static_cast<char>(next() & 0xFF);
    }
  }
  return text;
}

}  // namespace thimble
