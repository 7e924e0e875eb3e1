#include "daemon/model/special_tokens.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace thimble {
namespace {

// Tokens that end a turn or a text under these names, whatever kind the file gives them (llama.cpp
// keeps the same list, since files rarely name all of theirs).
constexpr std::string_view kEndNames[] = {"<|im_end|>",    "<|endoftext|>",   "<|eot_id|>",
                                          "<|eom_id|>",    "<|end|>",         "<|return|>",
                                          "<|call|>",      "<EOT>",           "_<EOT>",
                                          "<end_of_turn>", "<|end_of_text|>", "<end_of_utterance>"};
// Only as a control token: it is a tag of HTML too.
constexpr std::string_view kEndNameOfControl = "</s>";

Result<std::optional<int32_t>> TokenIdOr(const Gguf& gguf, std::string_view key, uint32_t n_tokens,
                                         std::optional<int32_t> fallback) {
  if (!gguf.metadata.contains(key)) {
    if (fallback && static_cast<uint32_t>(*fallback) >= n_tokens) fallback.reset();
    return fallback;
  }
  THIMBLE_ASSIGN_OR_RETURN(const uint64_t id, gguf.GetUint(key));
  if (id >= n_tokens) {
    return InvalidArgumentError(std::string(key) + " is " + std::to_string(id) +
                                ": the vocabulary has " + std::to_string(n_tokens) + " tokens");
  }
  return std::optional<int32_t>(static_cast<int32_t>(id));
}

}  // namespace

Result<SpecialTokens> SpecialTokens::Load(const Gguf& gguf, RandomAccessFile& file,
                                          VocabIndex& index, uint32_t n_tokens,
                                          const SpecialDefaults& defaults) {
  SpecialTokens specials;
  const auto id_or = [&](std::string_view key, std::optional<int32_t> fallback) {
    return TokenIdOr(gguf, key, n_tokens, fallback);
  };
  THIMBLE_ASSIGN_OR_RETURN(specials.bos, id_or("tokenizer.ggml.bos_token_id", defaults.bos));
  THIMBLE_ASSIGN_OR_RETURN(specials.eos, id_or("tokenizer.ggml.eos_token_id", defaults.eos));
  THIMBLE_ASSIGN_OR_RETURN(specials.unknown,
                           id_or("tokenizer.ggml.unknown_token_id", defaults.unknown));
  const auto flag_or = [&](std::string_view key, bool fallback,
                           const std::optional<int32_t>& id) -> Result<bool> {
    THIMBLE_ASSIGN_OR_RETURN(const bool flag, gguf.GetBoolOr(key, fallback && id.has_value()));
    if (flag && !id) {
      return InvalidArgumentError(std::string(key) + " is true, but the file names no such token");
    }
    return flag;
  };
  THIMBLE_ASSIGN_OR_RETURN(specials.add_bos,
                           flag_or("tokenizer.ggml.add_bos_token", defaults.add_bos, specials.bos));
  THIMBLE_ASSIGN_OR_RETURN(specials.add_eos,
                           flag_or("tokenizer.ggml.add_eos_token", defaults.add_eos, specials.eos));

  VocabIndex::Reader reader(index);
  THIMBLE_RETURN_IF_ERROR(reader.status());
  THIMBLE_RETURN_IF_ERROR(specials.LoadKinds(gguf, file, reader));
  THIMBLE_RETURN_IF_ERROR(specials.LoadEndTokens(gguf, reader, n_tokens));
  // What Encode adds, Decode takes off again, in a file without kinds too.
  for (const auto& [added, id] :
       {std::pair(specials.add_bos, specials.bos), std::pair(specials.add_eos, specials.eos)}) {
    if (added) THIMBLE_RETURN_IF_ERROR(specials.AddById(reader, *id, TokenKind::kControl));
  }
  specials.Sort();
  return specials;
}

Status SpecialTokens::LoadKinds(const Gguf& gguf, RandomAccessFile& file,
                                VocabIndex::Reader& reader) {
  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* kinds,
                           gguf.FindArray("tokenizer.ggml.token_type", GgufType::kInt32));
  if (kinds == nullptr) return {};
  Status added;
  THIMBLE_RETURN_IF_ERROR(ForEachInt(file, *kinds, [&](uint64_t index, int64_t value) {
    const auto kind = static_cast<TokenKind>(value);
    if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined ||
        kind == TokenKind::kUnknown) {
      added = AddById(reader, static_cast<int32_t>(index), kind);
    }
    return added.ok();
  }));
  return added;
}

Status SpecialTokens::LoadEndTokens(const Gguf& gguf, VocabIndex::Reader& reader,
                                    uint32_t n_tokens) {
  const auto add_end = [&](std::optional<int32_t> id) {
    if (id && std::find(end_tokens.begin(), end_tokens.end(), *id) == end_tokens.end()) {
      end_tokens.push_back(*id);
    }
  };
  add_end(eos);
  for (const std::string_view key :
       {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    THIMBLE_ASSIGN_OR_RETURN(const std::optional<int32_t> id,
                             TokenIdOr(gguf, key, n_tokens, std::nullopt));
    add_end(id);
  }
  for (const std::string_view name : kEndNames) {
    THIMBLE_ASSIGN_OR_RETURN(const std::optional<uint32_t> id, reader.Find(name));
    if (!id) continue;
    add_end(static_cast<int32_t>(*id));
    THIMBLE_RETURN_IF_ERROR(AddById(reader, static_cast<int32_t>(*id), TokenKind::kControl));
  }
  THIMBLE_ASSIGN_OR_RETURN(const std::optional<uint32_t> id, reader.Find(kEndNameOfControl));
  if (id) {
    THIMBLE_ASSIGN_OR_RETURN(const VocabToken token, reader.Token(*id));
    if (token.kind == static_cast<uint8_t>(TokenKind::kControl)) add_end(static_cast<int32_t>(*id));
  }
  std::sort(end_tokens.begin(), end_tokens.end());
  return {};
}

// Adds the token, or changes its kind where it is there already.
Status SpecialTokens::AddById(VocabIndex::Reader& reader, int32_t id, TokenKind kind) {
  for (SpecialToken& known : tokens_) {
    if (known.id == id) {
      known.kind = kind;
      return {};
    }
  }
  THIMBLE_ASSIGN_OR_RETURN(const VocabToken token, reader.Token(static_cast<uint32_t>(id)));
  text_bytes_ += token.text.size();
  if (tokens_.size() == kMaxCount || text_bytes_ > kMaxTextBytes) {
    return ResourceExhaustedError("tokenizer.ggml.token_type: more than " +
                                  std::to_string(kMaxCount) + " special tokens, or " +
                                  std::to_string(kMaxTextBytes) + " bytes of their text");
  }
  tokens_.push_back({std::string(token.text), id, kind});
  return {};
}

void SpecialTokens::Sort() {
  const auto first = [](const SpecialToken& token) {
    return static_cast<uint8_t>(token.text.empty() ? 0 : token.text[0]);
  };
  std::sort(tokens_.begin(), tokens_.end(), [&](const SpecialToken& a, const SpecialToken& b) {
    if (first(a) != first(b)) return first(a) < first(b);
    return a.text.size() != b.text.size() ? a.text.size() > b.text.size() : a.id < b.id;
  });
  for (const SpecialToken& token : tokens_) ++first_byte_[first(token) + 1];
  for (size_t i = 1; i < first_byte_.size(); ++i) {
    first_byte_[i] = static_cast<uint16_t>(first_byte_[i] + first_byte_[i - 1]);
  }
  by_id_.resize(tokens_.size());
  std::iota(by_id_.begin(), by_id_.end(), uint16_t{0});
  std::sort(by_id_.begin(), by_id_.end(),
            [this](uint16_t a, uint16_t b) { return tokens_[a].id < tokens_[b].id; });
}

const SpecialToken* SpecialTokens::MatchPrefix(std::string_view text, bool parse_special) const {
  if (text.empty()) return nullptr;
  const auto byte = static_cast<uint8_t>(text[0]);
  for (size_t i = first_byte_[byte]; i < first_byte_[byte + 1]; ++i) {
    const SpecialToken& token = tokens_[i];
    if (token.text.empty() || !text.starts_with(token.text)) continue;
    if (parse_special || token.kind == TokenKind::kUserDefined) return &token;
  }
  return nullptr;
}

const SpecialToken* SpecialTokens::FindById(int32_t id) const {
  const auto it =
      std::lower_bound(by_id_.begin(), by_id_.end(), id,
                       [this](uint16_t i, int32_t value) { return tokens_[i].id < value; });
  return it != by_id_.end() && tokens_[*it].id == id ? &tokens_[*it] : nullptr;
}

}  // namespace thimble
