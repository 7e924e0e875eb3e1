// Text to token ids and back, for the two families that GGUF files carry:
//  - "gpt2": byte-level BPE (Radford et al. 2019) with the pre-tokenizer named by
//    tokenizer.ggml.pre (gpt-2, smollm, llama-bpe, qwen2, default), run by PCRE2;
//  - "llama": SentencePiece BPE (arXiv:1808.06226) by scores, byte fallback, space prefix.
// The vocabulary and the merges are read from the vocabulary index (storage/vocab_index.h), one
// look-up at a time: a Tokenizer holds the special tokens and the compiled expression, under 1 MiB.
// Called by: admission, the token stream, `thimble tokenize`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"
#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/vocab_index.h"

namespace thimble {

using TokenId = int32_t;

struct EncodeOptions {
  bool add_special = true;     // the model's own BOS/EOS rules
  bool parse_special = false;  // "<|im_start|>" in the text becomes that token
};

// A part of a text whose origin matters.
struct TextPart {
  std::string_view text;
  bool parse_special = false;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Makes the tokenizer of `model`, building its part of `index` from `file` first if the index has
  // none yet (which holds 21 bytes a token and 16 a merge meanwhile). `index` must outlive the
  // tokenizer. Errors: INVALID_ARGUMENT naming the key for a malformed vocabulary, UNIMPLEMENTED
  // for a tokenizer or pre-tokenizer thimble does not know, and the index's.
  static Result<std::unique_ptr<Tokenizer>> Open(const Model& model, RandomAccessFile& file,
                                                 VocabIndex& index);

  // Any bytes are valid text; Decode(Encode(text)) == text for every byte string (with add_special
  // and, for "llama", the space prefix taken off again by Decode; control tokens that parse_special
  // has found have no bytes). Vocabularies lack tokens for bytes that their training text lacked
  // (SmolLM2 for 21 of them: 0x04, 0xFF): a text with such a byte is INVALID_ARGUMENT, naming it,
  // rather than silently another text. (With "llama", a file that has an unknown token and no byte
  // tokens gives the unknown token.) While it runs it holds at most 56 bytes for each byte of the
  // text's longest piece: a word for "gpt2", everything between special tokens for "llama".
  [[nodiscard]] virtual Result<std::vector<TokenId>> Encode(std::string_view text,
                                                            const EncodeOptions& options) = 0;

  // The same for the parts joined: one text, in which a special token is found only where all of
  // it lies within one part whose parse_special is set. (User-defined ones are found everywhere.)
  [[nodiscard]] virtual Result<std::vector<TokenId>> EncodeParts(std::span<const TextPart> parts,
                                                                 bool add_special) = 0;

  // The bytes of one token; control tokens have none unless `show_special`. The bytes may be a part
  // of a UTF-8 character. Errors: OUT_OF_RANGE for an id outside the vocabulary. Ids that only pad
  // the embedding (the file's list of tokens ends before) have no bytes.
  [[nodiscard]] virtual Result<std::string> TokenBytes(TokenId id, bool show_special) = 0;

  // The bytes of a whole sequence, the inverse of Encode.
  [[nodiscard]] virtual Result<std::string> Decode(const std::vector<TokenId>& ids) = 0;

  [[nodiscard]] virtual std::optional<TokenId> bos() const = 0;
  [[nodiscard]] virtual std::optional<TokenId> eos() const = 0;
  // BOS comes before every text by the model's own rule.
  [[nodiscard]] virtual bool adds_bos() const = 0;
  // Any of these ends a generation (EOS, EOT and the like).
  [[nodiscard]] virtual const std::vector<TokenId>& end_tokens() const = 0;
  [[nodiscard]] virtual uint32_t vocab_size() const = 0;
};

// Joins token bytes into pieces that end at UTF-8 character boundaries. Bytes that can never become
// a valid character are passed on unchanged, so that the joined pieces equal the joined bytes.
class Utf8Joiner {
 public:
  // What can be shown once `bytes` have arrived (perhaps nothing yet).
  std::string Push(std::string_view bytes);
  // What was held back, at the end of the text.
  std::string Flush();

 private:
  std::string pending_;  // at most 3 bytes: the beginning of a character
};

}  // namespace thimble
