// SentencePiece BPE (arXiv:1808.06226; tokenizer.ggml.model "llama"). A space is written U+2581,
// one is put before the text, and the pair of neighbours whose joined text is the token with the
// highest score is merged until there is none. Characters that are no tokens become byte tokens
// (<0x0A>).
//
// Plain SentencePiece turns a U+2581 of the text itself into a space. Here, where the vocabulary
// has byte tokens, it becomes its three bytes, so that Decode gives it back. Byte tokens, control
// tokens and the unknown token never come from text by merging: "<s>" typed by a user is not BOS.
// Memory: 1 KiB of byte tokens; while encoding, 56 bytes for each byte of the text.
#include <array>
#include <bit>
#include <charconv>

#include "daemon/model/symbol_merger.h"
#include "daemon/model/tokenizer_base.h"
#include "daemon/model/utf8.h"

namespace thimble {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581
constexpr TokenId kNoToken = -1;
// Symbols' ids before they are merged.
constexpr int32_t kCharacter = -1;
constexpr int32_t kBytes = -2;  // stays bytes: invalid UTF-8, or U+2581 of the text itself

std::string ByteTokenText(unsigned byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  return std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + '>';
}

// Floats in falling order as integers in rising order (IEEE 754: the sign bit, then magnitude).
uint32_t PriorityOf(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0F);  // -0 to +0
  const uint32_t rising = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return ~rising;
}

bool ComesFromText(uint8_t kind) {
  const auto token_kind = static_cast<TokenKind>(kind);
  return token_kind != TokenKind::kControl && token_kind != TokenKind::kUnknown &&
         token_kind != TokenKind::kByte;
}

class SpmTokenizer final : public TokenizerBase {
 public:
  SpmTokenizer(TokenizerParts parts, bool space_prefix)
      : TokenizerBase(std::move(parts)), space_prefix_(space_prefix) {}

  // Looks up the byte tokens, or tokens of one raw byte in their place.
  Status LoadByteTokens() {
    VocabIndex::Reader reader(*parts().index);
    for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
      THIMBLE_ASSIGN_OR_RETURN(std::optional<uint32_t> id,
                               reader.Find(ByteTokenText(static_cast<unsigned>(byte))));
      if (!id) {
        const char raw = static_cast<char>(byte);
        THIMBLE_ASSIGN_OR_RETURN(id, reader.Find(std::string_view(&raw, 1)));
      }
      byte_tokens_[byte] = id ? static_cast<TokenId>(*id) : kNoToken;
    }
    return {};
  }

 protected:
  Status EncodeText(VocabIndex::Reader& reader, std::string_view text,
                    std::vector<TokenId>* ids) override {
    std::string escaped;
    escaped.reserve(text.size() + kSpace.size());
    SymbolMerger merger;
    const auto add = [&](std::string_view symbol, int32_t id) {
      escaped += symbol;
      merger.Add(static_cast<uint32_t>(symbol.size()), id);
    };
    if (space_prefix_) add(kSpace, kCharacter);
    const bool keeps_u2581 = HasBytes(kSpace);
    while (!text.empty()) {
      const size_t length = Utf8CharBytes(text);
      const std::string_view symbol = text.substr(0, length == 0 ? 1 : length);
      const bool bytes = length == 0 || (symbol == kSpace && keeps_u2581);
      add(symbol == " " ? kSpace : symbol, bytes ? kBytes : kCharacter);
      text.remove_prefix(symbol.size());
    }
    const auto lookup = [&](const Symbol& left,
                            const Symbol& right) -> Result<std::optional<JoinedSymbol>> {
      if (left.id == kBytes || right.id == kBytes) return std::optional<JoinedSymbol>();
      return FindTextToken(reader,
                           std::string_view(escaped).substr(left.begin, left.bytes + right.bytes));
    };
    THIMBLE_RETURN_IF_ERROR(merger.Merge(lookup));
    for (const Symbol& symbol : merger.symbols()) {
      if (symbol.bytes == 0) continue;
      const std::string_view symbol_text =
          std::string_view(escaped).substr(symbol.begin, symbol.bytes);
      THIMBLE_RETURN_IF_ERROR(Emit(reader, symbol, symbol_text, ids));
    }
    return {};
  }

  [[nodiscard]] std::string DecodeText(const VocabToken& token) const override {
    if (token.kind == static_cast<uint8_t>(TokenKind::kByte) && token.text.size() == 6) {
      uint8_t byte = 0;  // the text is "<0xXX>": LoadModel has checked it
      std::from_chars(token.text.data() + 3, token.text.data() + 5, byte, 16);
      return {static_cast<char>(byte)};
    }
    std::string bytes(token.text);
    size_t end = 0;
    for (size_t at = 0; at < token.text.size(); ++end) {
      const bool space = token.text.substr(at).starts_with(kSpace);
      bytes[end] = space ? ' ' : token.text[at];
      at += space ? kSpace.size() : 1;
    }
    bytes.resize(end);
    return bytes;
  }
  [[nodiscard]] bool has_space_prefix() const override { return space_prefix_; }

 private:
  [[nodiscard]] bool HasBytes(std::string_view text) const {
    for (const char c : text) {
      if (byte_tokens_[static_cast<uint8_t>(c)] == kNoToken) return false;
    }
    return true;
  }

  // The token of `text` with the priority of its score, where text may become it.
  [[nodiscard]] static Result<std::optional<JoinedSymbol>> FindTextToken(VocabIndex::Reader& reader,
                                                                         std::string_view text) {
    THIMBLE_ASSIGN_OR_RETURN(const std::optional<uint32_t> id, reader.Find(text));
    if (!id) return std::optional<JoinedSymbol>();
    THIMBLE_ASSIGN_OR_RETURN(const VocabToken token, reader.Token(*id));
    if (!ComesFromText(token.kind)) return std::optional<JoinedSymbol>();
    return std::optional<JoinedSymbol>({PriorityOf(token.score), static_cast<TokenId>(*id)});
  }

  // Appends the symbol's token, else its bytes' tokens, else the unknown token.
  Status Emit(VocabIndex::Reader& reader, const Symbol& symbol, std::string_view text,
              std::vector<TokenId>* ids) const {
    if (symbol.id >= 0) {
      ids->push_back(symbol.id);
      return {};
    }
    if (symbol.id == kCharacter) {
      THIMBLE_ASSIGN_OR_RETURN(const std::optional<JoinedSymbol> token,
                               FindTextToken(reader, text));
      if (token) {
        ids->push_back(token->id);
        return {};
      }
      if (text == kSpace && HasBytes(" ")) text = " ";  // U+2581 itself never gets here then
    }
    if (HasBytes(text)) {
      for (const char c : text) ids->push_back(byte_tokens_[static_cast<uint8_t>(c)]);
      return {};
    }
    if (!parts().specials.unknown) {
      return InvalidArgumentError("encode \"" + std::string(text) +
                                  "\": the model's vocabulary has no token for it");
    }
    ids->push_back(*parts().specials.unknown);
    return {};
  }

  const bool space_prefix_;
  std::array<TokenId, 256> byte_tokens_{};
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> MakeSpmTokenizer(TokenizerParts parts, bool space_prefix) {
  auto tokenizer = std::make_unique<SpmTokenizer>(std::move(parts), space_prefix);
  THIMBLE_RETURN_IF_ERROR(tokenizer->LoadByteTokens());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace thimble
