#include "daemon/model/vocabulary.h"

#include <array>
#include <bitset>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/model/gguf_cursor.h"

namespace thimble {
namespace {

constexpr std::string_view kModelKey = "tokenizer.ggml.model";
constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";
constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";

// The special tokens a generation uses. Others (padding, mask) are out of range in some published
// files and never looked at.
constexpr std::array<std::string_view, 5> kIdKeys = {
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id", "tokenizer.ggml.unknown_token_id"};

// llama.cpp's llama_token_type: 0 undefined, 1 normal, 2 unknown, 3 control, 4 user, 5 unused, 6
// byte.
constexpr int64_t kByteTokenType = 6;
constexpr uint64_t kMaxTokens = INT32_MAX;  // ids are int32

Status ElementError(std::string_view key, uint64_t index, const std::string& what) {
  return InvalidArgumentError("key " + std::string(key) + ": element " + std::to_string(index) +
                              ": " + what);
}

Status MissingFor(std::string_view key, const std::string& model) {
  return InvalidArgumentError("key " + std::string(key) + ": missing, and a \"" + Printable(model) +
                              "\" vocabulary needs it");
}

std::optional<uint8_t> HexDigit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  if (c >= 'A' && c <= 'F') return static_cast<uint8_t>(c - 'A' + 10);
  if (c >= 'a' && c <= 'f') return static_cast<uint8_t>(c - 'a' + 10);
  return std::nullopt;
}

// The byte that "<0x1F>" stands for.
std::optional<uint8_t> ParseByteToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const auto high = HexDigit(text[3]);
  const auto low = HexDigit(text[4]);
  if (!high || !low) return std::nullopt;
  return static_cast<uint8_t>(*high * 16 + *low);
}

Status CheckCount(std::string_view key, const GgufArray& array, uint64_t n_tokens) {
  if (array.count == n_tokens) return {};
  return InvalidArgumentError("key " + std::string(key) + ": " + std::to_string(array.count) +
                              " elements for " + std::to_string(n_tokens) + " tokens in " +
                              std::string(kTokensKey));
}

Status CheckScores(RandomAccessFile& file, const GgufArray& scores) {
  Status error;
  THIMBLE_RETURN_IF_ERROR(
      InContext("key", kScoresKey, ForEachFloat(file, scores, [&](uint64_t index, float score) {
                  if (std::isnan(score)) error = ElementError(kScoresKey, index, "not a number");
                  return error.ok();
                })));
  return error;
}

// Fills `byte_tokens` with the ids of type 6, in order.
Status CheckTypes(RandomAccessFile& file, const GgufArray& types,
                  std::vector<uint64_t>* byte_tokens) {
  Status error;
  THIMBLE_RETURN_IF_ERROR(InContext(
      "key", kTypesKey, ForEachInt(file, types, [&](uint64_t index, int64_t type) {
        if (type < 0 || type > kByteTokenType) {
          error = ElementError(kTypesKey, index, "unknown token type " + std::to_string(type));
        } else if (type == kByteTokenType) {
          if (byte_tokens->size() == 256) {
            error = ElementError(kTypesKey, index, "more than 256 byte tokens");
          } else {
            byte_tokens->push_back(index);
          }
        }
        return error.ok();
      })));
  return error;
}

// Walks all tokens (each must be readable) and looks at those of type 6.
Status CheckTokens(RandomAccessFile& file, const GgufArray& tokens,
                   const std::vector<uint64_t>& byte_tokens) {
  Status error;
  std::bitset<256> seen;
  auto next = byte_tokens.begin();
  THIMBLE_RETURN_IF_ERROR(InContext(
      "key", kTokensKey, ForEachString(file, tokens, [&](uint64_t index, std::string_view text) {
        if (next == byte_tokens.end() || *next != index) return true;
        ++next;
        const auto byte = ParseByteToken(text);
        if (!byte) {
          error = ElementError(
              kTokensKey, index,
              "byte token \"" + Printable(text) + "\", expected \"<0x00>\" to \"<0xFF>\"");
        } else if (seen[*byte]) {
          error =
              ElementError(kTokensKey, index, "byte token " + Printable(text) + " appears twice");
        } else {
          seen.set(*byte);
        }
        return error.ok();
      })));
  return error;
}

Status CheckMerges(RandomAccessFile& file, const GgufArray& merges) {
  Status error;
  THIMBLE_RETURN_IF_ERROR(InContext(
      "key", kMergesKey, ForEachString(file, merges, [&](uint64_t index, std::string_view text) {
        const size_t space = text.find(' ', 1);
        if (space == std::string_view::npos || space + 1 == text.size()) {
          error =
              ElementError(kMergesKey, index,
                           "\"" + Printable(text) + "\", expected two pieces and a space between");
        }
        return error.ok();
      })));
  return error;
}

}  // namespace

Status ValidateVocabulary(RandomAccessFile& file, const Gguf& gguf) {
  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* const tokens,
                           gguf.FindArray(kTokensKey, GgufType::kString));
  if (tokens == nullptr && !gguf.metadata.contains(kModelKey)) return {};
  THIMBLE_ASSIGN_OR_RETURN(const std::string model, gguf.GetString(kModelKey));
  if (tokens == nullptr) return MissingFor(kTokensKey, model);
  if (tokens->count == 0 || tokens->count > kMaxTokens) {
    return InvalidArgumentError("key " + std::string(kTokensKey) + ": " +
                                std::to_string(tokens->count) + " tokens, expected 1 to " +
                                std::to_string(kMaxTokens));
  }

  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* const scores,
                           gguf.FindArray(kScoresKey, GgufType::kFloat32));
  if (scores == nullptr && model == "llama") return MissingFor(kScoresKey, model);
  if (scores != nullptr) {
    THIMBLE_RETURN_IF_ERROR(CheckCount(kScoresKey, *scores, tokens->count));
    THIMBLE_RETURN_IF_ERROR(CheckScores(file, *scores));
  }
  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* const types,
                           gguf.FindArray(kTypesKey, GgufType::kInt32));
  std::vector<uint64_t> byte_tokens;
  if (types != nullptr) {
    THIMBLE_RETURN_IF_ERROR(CheckCount(kTypesKey, *types, tokens->count));
    THIMBLE_RETURN_IF_ERROR(CheckTypes(file, *types, &byte_tokens));
  }
  THIMBLE_RETURN_IF_ERROR(CheckTokens(file, *tokens, byte_tokens));
  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* const merges,
                           gguf.FindArray(kMergesKey, GgufType::kString));
  if (merges == nullptr && model == "gpt2") return MissingFor(kMergesKey, model);
  if (merges != nullptr) THIMBLE_RETURN_IF_ERROR(CheckMerges(file, *merges));

  for (const std::string_view key : kIdKeys) {
    THIMBLE_ASSIGN_OR_RETURN(const uint64_t id, gguf.GetUintOr(key, 0));
    if (id >= tokens->count) {
      return InvalidArgumentError("key " + std::string(key) + ": token " + std::to_string(id) +
                                  " of a vocabulary of " + std::to_string(tokens->count));
    }
  }
  return {};
}

}  // namespace thimble
