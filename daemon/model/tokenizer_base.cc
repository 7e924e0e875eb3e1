#include "daemon/model/tokenizer_base.h"

#include <cstdint>

namespace thimble {

Result<std::vector<TokenId>> TokenizerBase::Encode(std::string_view text,
                                                   const EncodeOptions& options) {
  const TextPart part = {text, options.parse_special};
  return EncodeParts({&part, 1}, options.add_special);
}

Result<std::vector<TokenId>> TokenizerBase::EncodeParts(std::span<const TextPart> parts,
                                                        bool add_special) {
  std::string joined;
  if (parts.size() != 1) {
    for (const TextPart& part : parts) joined += part.text;
  }
  const std::string_view text = parts.size() == 1 ? parts[0].text : joined;
  if (text.size() > INT32_MAX) {
    return InvalidArgumentError("encode " + std::to_string(text.size()) +
                                " bytes of text: at most " + std::to_string(INT32_MAX));
  }
  const SpecialTokens& specials = parts_.specials;
  VocabIndex::Reader reader(*parts_.index);
  THIMBLE_RETURN_IF_ERROR(reader.status());
  std::vector<TokenId> ids;
  if (add_special && specials.add_bos) ids.push_back(*specials.bos);
  size_t begin = 0;  // of the text behind the last special token
  size_t at = 0;
  size_t part = 0;  // that `at` is in
  size_t part_end = parts.empty() ? 0 : parts[0].text.size();
  while (at <= text.size()) {
    while (at >= part_end && part + 1 < parts.size()) part_end += parts[++part].text.size();
    const SpecialToken* special = nullptr;
    if (at < part_end && parts[part].parse_special) {
      special = specials.MatchPrefix(text.substr(at, part_end - at), true);
    }
    if (special == nullptr) special = specials.MatchPrefix(text.substr(at), false);
    const bool ends = special != nullptr || at == text.size();
    if (ends && at > begin) {
      THIMBLE_RETURN_IF_ERROR(EncodeText(reader, text.substr(begin, at - begin), &ids));
    }
    if (special == nullptr) {
      ++at;
      continue;
    }
    ids.push_back(special->id);
    at += special->text.size();
    begin = at;
  }
  if (add_special && specials.add_eos) ids.push_back(*specials.eos);
  return ids;
}

Result<std::string> TokenizerBase::BytesOf(VocabIndex::Reader& reader, TokenId id,
                                           bool show_special, bool* special) const {
  *special = false;
  if (id < 0 || static_cast<uint32_t>(id) >= parts_.vocab_size) {
    return OutOfRangeError("token " + std::to_string(id) + ": the vocabulary has " +
                           std::to_string(parts_.vocab_size) + " tokens");
  }
  if (static_cast<uint32_t>(id) >= parts_.n_tokens) return std::string();  // padding
  if (const SpecialToken* token = parts_.specials.FindById(id)) {
    *special = true;
    const bool shown = show_special || token->kind == TokenKind::kUserDefined;
    return shown ? token->text : std::string();
  }
  THIMBLE_ASSIGN_OR_RETURN(const VocabToken token, reader.Token(static_cast<uint32_t>(id)));
  return DecodeText(token);
}

Result<std::string> TokenizerBase::TokenBytes(TokenId id, bool show_special) {
  VocabIndex::Reader reader(*parts_.index);
  bool special = false;
  return BytesOf(reader, id, show_special, &special);
}

Result<std::string> TokenizerBase::Decode(const std::vector<TokenId>& ids) {
  VocabIndex::Reader reader(*parts_.index);
  std::string text;
  bool has_prefix = has_space_prefix();
  for (const TokenId id : ids) {
    bool special = false;
    THIMBLE_ASSIGN_OR_RETURN(const std::string bytes, BytesOf(reader, id, false, &special));
    const bool strip = has_prefix && !special && bytes.starts_with(' ');
    text.append(bytes, strip ? 1 : 0);
    has_prefix = special && has_space_prefix();
  }
  return text;
}

}  // namespace thimble
