// Byte-level BPE (Radford et al. 2019; tokenizer.ggml.model "gpt2"). Text is cut into pieces by the
// pre-tokenizer; a piece begins as one token a byte, and the pair of neighbours with the lowest
// rank is merged until there is none. Ranks come from the vocabulary index by the pair's ids.
// Memory: 1 KiB of byte tokens, the compiled expressions; while encoding, 52 bytes for each byte of
// the longest piece (a piece is a word, except where a text is made of one long one).
#include <array>

#include "daemon/model/byte_alphabet.h"
#include "daemon/model/pretokenizer.h"
#include "daemon/model/symbol_merger.h"
#include "daemon/model/tokenizer_base.h"

namespace thimble {
namespace {

constexpr TokenId kNoToken = -1;

class BpeTokenizer final : public TokenizerBase {
 public:
  BpeTokenizer(TokenizerParts parts, std::unique_ptr<Pretokenizer> pretokenizer)
      : TokenizerBase(std::move(parts)), pretokenizer_(std::move(pretokenizer)) {}

  // Looks up the 256 tokens that stand for one byte. Vocabularies trained on little text lack some
  // (SmolLM2 has none for 21 control and never-used bytes): Encode refuses these when they come.
  Status LoadByteTokens() {
    VocabIndex::Reader reader(*parts().index);
    for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
      std::string text;
      AppendAlphabetChar(static_cast<uint8_t>(byte), &text);
      THIMBLE_ASSIGN_OR_RETURN(const std::optional<uint32_t> id, reader.Find(text));
      byte_tokens_[byte] = id ? static_cast<TokenId>(*id) : kNoToken;
    }
    return {};
  }

 protected:
  Status EncodeText(VocabIndex::Reader& reader, std::string_view text,
                    std::vector<TokenId>* ids) override {
    SymbolMerger merger;
    return pretokenizer_->Split(
        text, [&](std::string_view piece) { return EncodePiece(reader, piece, &merger, ids); });
  }
  [[nodiscard]] std::string DecodeText(const VocabToken& token) const override {
    return BytesOfAlphabet(token.text);
  }
  [[nodiscard]] bool has_space_prefix() const override { return false; }

 private:
  Status EncodePiece(VocabIndex::Reader& reader, std::string_view piece, SymbolMerger* merger,
                     std::vector<TokenId>* ids) const {
    if (pretokenizer_->ignore_merges()) {
      THIMBLE_ASSIGN_OR_RETURN(const bool whole, EncodeWhole(reader, piece, ids));
      if (whole) return {};
    }
    merger->Clear();
    for (const char c : piece) {
      const TokenId id = byte_tokens_[static_cast<uint8_t>(c)];
      if (id == kNoToken) {
        return InvalidArgumentError("encode byte " + std::to_string(static_cast<uint8_t>(c)) +
                                    ": the model's vocabulary has no token for it");
      }
      merger->Add(1, id);
    }
    const auto lookup = [&](const Symbol& left,
                            const Symbol& right) -> Result<std::optional<JoinedSymbol>> {
      THIMBLE_ASSIGN_OR_RETURN(
          const std::optional<VocabMerge> merge,
          reader.Merge(static_cast<uint32_t>(left.id), static_cast<uint32_t>(right.id)));
      if (!merge) return std::optional<JoinedSymbol>();
      return std::optional<JoinedSymbol>({merge->rank, static_cast<TokenId>(merge->result)});
    };
    THIMBLE_RETURN_IF_ERROR(merger->Merge(lookup));
    for (const Symbol& symbol : merger->symbols()) {
      if (symbol.bytes > 0) ids->push_back(symbol.id);
    }
    return {};
  }

  // Takes `piece` as one token where it is one that text may become.
  [[nodiscard]] static Result<bool> EncodeWhole(VocabIndex::Reader& reader, std::string_view piece,
                                                std::vector<TokenId>* ids) {
    if (piece.size() > kMaxWholeBytes) return false;
    std::string text;
    for (const char c : piece) AppendAlphabetChar(static_cast<uint8_t>(c), &text);
    THIMBLE_ASSIGN_OR_RETURN(const std::optional<uint32_t> id, reader.Find(text));
    if (!id) return false;
    THIMBLE_ASSIGN_OR_RETURN(const VocabToken token, reader.Token(*id));
    if (token.kind == static_cast<uint8_t>(TokenKind::kControl)) return false;
    ids->push_back(static_cast<TokenId>(*id));
    return true;
  }

  // The longest text of a token that the GGUF reader passes on.
  static constexpr size_t kMaxWholeBytes = 64 * 1024;

  std::unique_ptr<Pretokenizer> pretokenizer_;
  std::array<TokenId, 256> byte_tokens_{};
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(TokenizerParts parts,
                                                    std::unique_ptr<Pretokenizer> pretokenizer) {
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(parts), std::move(pretokenizer));
  THIMBLE_RETURN_IF_ERROR(tokenizer->LoadByteTokens());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace thimble
