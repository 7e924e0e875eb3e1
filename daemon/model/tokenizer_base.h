// What the two tokenizer families share: special tokens, BOS and EOS, walking a text and a
// sequence. A family turns plain text into ids and one token's text into bytes. Called by:
// tokenizer.cc makes one. Memory: the special tokens.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/model/pretokenizer.h"
#include "daemon/model/special_tokens.h"
#include "daemon/model/tokenizer.h"

namespace thimble {

struct TokenizerParts {
  VocabIndex* index = nullptr;  // built
  SpecialTokens specials;
  uint32_t n_tokens = 0;    // in the file's list
  uint32_t vocab_size = 0;  // rows of the embedding: n_tokens or, padded, more
};

class TokenizerBase : public Tokenizer {
 public:
  explicit TokenizerBase(TokenizerParts parts) : parts_(std::move(parts)) {}

  [[nodiscard]] Result<std::vector<TokenId>> Encode(std::string_view text,
                                                    const EncodeOptions& options) final;
  [[nodiscard]] Result<std::vector<TokenId>> EncodeParts(std::span<const TextPart> parts,
                                                         bool add_special) final;
  [[nodiscard]] Result<std::string> TokenBytes(TokenId id, bool show_special) final;
  [[nodiscard]] Result<std::string> Decode(const std::vector<TokenId>& ids) final;
  [[nodiscard]] std::optional<TokenId> bos() const final { return parts_.specials.bos; }
  [[nodiscard]] std::optional<TokenId> eos() const final { return parts_.specials.eos; }
  [[nodiscard]] bool adds_bos() const final { return parts_.specials.add_bos; }
  [[nodiscard]] const std::vector<TokenId>& end_tokens() const final {
    return parts_.specials.end_tokens;
  }
  [[nodiscard]] uint32_t vocab_size() const final { return parts_.vocab_size; }

 protected:
  // Appends the ids of `text`, which is not empty and has no special tokens in it. It begins the
  // sequence or comes behind a special token.
  virtual Status EncodeText(VocabIndex::Reader& reader, std::string_view text,
                            std::vector<TokenId>* ids) = 0;
  // The bytes of a token that is not special.
  [[nodiscard]] virtual std::string DecodeText(const VocabToken& token) const = 0;
  // Whether EncodeText puts a space before the text.
  [[nodiscard]] virtual bool has_space_prefix() const = 0;

  [[nodiscard]] const TokenizerParts& parts() const { return parts_; }

 private:
  [[nodiscard]] Result<std::string> BytesOf(VocabIndex::Reader& reader, TokenId id,
                                            bool show_special, bool* special) const;

  TokenizerParts parts_;
};

// The families.
Result<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(TokenizerParts parts,
                                                    std::unique_ptr<Pretokenizer> pretokenizer);
Result<std::unique_ptr<Tokenizer>> MakeSpmTokenizer(TokenizerParts parts, bool space_prefix);

}  // namespace thimble
