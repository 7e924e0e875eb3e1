// A model's special tokens, kept in RAM: control tokens (<|im_start|>), user-defined ones, the
// unknown token; which of them begin and end a text, and which end a generation. Called by: the
// tokenizers. Memory: 64 bytes and the text for each; at most kMaxTextBytes of text and kMaxCount
// tokens (Llama 3 has 256, of 6 KiB).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/gguf.h"
#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/vocab_index.h"

namespace thimble {

// tokenizer.ggml.token_type's values: never change these values.
enum class TokenKind : uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct SpecialToken {
  std::string text;
  int32_t id = 0;
  TokenKind kind = TokenKind::kControl;
};

// What holds where the file does not say: its tokenizer family's custom.
struct SpecialDefaults {
  bool add_bos = false;
  bool add_eos = false;
  std::optional<int32_t> bos, eos, unknown;
};

class SpecialTokens {
 public:
  static constexpr size_t kMaxCount = 4096;
  static constexpr size_t kMaxTextBytes = 128 * 1024;

  // Reads the kinds from `file` and the texts from `index`, which is built. Errors:
  // INVALID_ARGUMENT for an id outside the vocabulary, or a BOS or EOS that is to be added and does
  // not exist.
  static Result<SpecialTokens> Load(const Gguf& gguf, RandomAccessFile& file, VocabIndex& index,
                                    uint32_t n_tokens, const SpecialDefaults& defaults);

  // The longest special token that `text` begins with, or nullptr: user-defined ones always, the
  // others only with `parse_special`. Taken from the left, as Hugging Face's tokenizers do.
  [[nodiscard]] const SpecialToken* MatchPrefix(std::string_view text, bool parse_special) const;
  [[nodiscard]] const SpecialToken* FindById(int32_t id) const;

  std::optional<int32_t> bos, eos, unknown;
  bool add_bos = false;             // then bos is there
  bool add_eos = false;             // then eos is there
  std::vector<int32_t> end_tokens;  // rising

 private:
  Status AddById(VocabIndex::Reader& reader, int32_t id, TokenKind kind);
  Status LoadKinds(const Gguf& gguf, RandomAccessFile& file, VocabIndex::Reader& reader);
  Status LoadEndTokens(const Gguf& gguf, VocabIndex::Reader& reader, uint32_t n_tokens);
  void Sort();

  std::vector<SpecialToken> tokens_;        // by first byte, the longest first
  std::vector<uint16_t> by_id_;             // indices into tokens_, rising by id
  std::array<uint16_t, 257> first_byte_{};  // where tokens_ that begin with a byte begin
  size_t text_bytes_ = 0;
};

}  // namespace thimble
