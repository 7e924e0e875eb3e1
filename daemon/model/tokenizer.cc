// Tokenizer::Open: checks the file's vocabulary, builds the index where there is none, makes the
// family the file names.
#include "daemon/model/tokenizer.h"

#include "daemon/model/special_tokens.h"
#include "daemon/model/tokenizer_base.h"

namespace thimble {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kKindsKey = "tokenizer.ggml.token_type";
constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";

struct VocabArrays {
  const GgufArray* tokens = nullptr;
  const GgufArray* scores = nullptr;  // may be missing
  const GgufArray* kinds = nullptr;   // may be missing
  const GgufArray* merges = nullptr;  // "gpt2" only
};

Result<const GgufArray*> FindSameLength(const Gguf& gguf, std::string_view key, GgufType type,
                                        uint64_t n_tokens) {
  THIMBLE_ASSIGN_OR_RETURN(const GgufArray* array, gguf.FindArray(key, type));
  if (array != nullptr && array->count != n_tokens) {
    return InvalidArgumentError(std::string(key) + " has " + std::to_string(array->count) +
                                " elements, " + std::string(kTokensKey) + " " +
                                std::to_string(n_tokens));
  }
  return array;
}

Result<VocabArrays> FindArrays(const Model& model, bool needs_merges) {
  const Gguf& gguf = model.gguf;
  VocabArrays arrays;
  THIMBLE_ASSIGN_OR_RETURN(arrays.tokens, gguf.FindArray(kTokensKey, GgufType::kString));
  if (arrays.tokens == nullptr || arrays.tokens->count == 0) {
    return InvalidArgumentError(std::string(kTokensKey) + " is missing or empty");
  }
  const uint64_t n_tokens = arrays.tokens->count;
  if (n_tokens > model.vocab_size) {
    return InvalidArgumentError(std::string(kTokensKey) + " has " + std::to_string(n_tokens) +
                                " elements, the token embedding " +
                                std::to_string(model.vocab_size) + " rows");
  }
  THIMBLE_ASSIGN_OR_RETURN(arrays.scores,
                           FindSameLength(gguf, kScoresKey, GgufType::kFloat32, n_tokens));
  THIMBLE_ASSIGN_OR_RETURN(arrays.kinds,
                           FindSameLength(gguf, kKindsKey, GgufType::kInt32, n_tokens));
  if (needs_merges) {
    THIMBLE_ASSIGN_OR_RETURN(arrays.merges, gguf.FindArray(kMergesKey, GgufType::kString));
    if (arrays.merges == nullptr) {
      return InvalidArgumentError(std::string(kMergesKey) +
                                  " is missing: a byte-level BPE tokenizer needs it");
    }
  }
  return arrays;
}

// The elements themselves have been checked when the model was loaded (vocabulary.h).
Status BuildIndex(const VocabArrays& arrays, RandomAccessFile& file, VocabIndex& index) {
  const size_t n_tokens = arrays.tokens->count;
  std::vector<float> scores(n_tokens, 0.0F);
  std::vector<uint8_t> kinds(n_tokens, static_cast<uint8_t>(TokenKind::kNormal));
  if (arrays.scores != nullptr) {
    THIMBLE_RETURN_IF_ERROR(ForEachFloat(file, *arrays.scores, [&](uint64_t i, float score) {
      scores[i] = score;
      return true;
    }));
  }
  if (arrays.kinds != nullptr) {
    THIMBLE_RETURN_IF_ERROR(ForEachInt(file, *arrays.kinds, [&](uint64_t i, int64_t kind) {
      kinds[i] = static_cast<uint8_t>(kind);
      return true;
    }));
  }

  Status status;
  const VocabIndex::TokenSource tokens = [&](const auto& add) -> Status {
    const auto visit = [&](uint64_t i, std::string_view text) {
      status = add({text, scores[i], kinds[i]});
      return status.ok();
    };
    THIMBLE_RETURN_IF_ERROR(ForEachString(file, *arrays.tokens, visit));
    return status;
  };
  const VocabIndex::MergeSource merges = [&](const auto& add) -> Status {
    if (arrays.merges == nullptr) return {};
    const auto visit = [&](uint64_t, std::string_view merge) {
      status = add(merge);
      return status.ok();
    };
    THIMBLE_RETURN_IF_ERROR(ForEachString(file, *arrays.merges, visit));
    return status;
  };
  return index.Build(tokens, merges);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Open(const Model& model, RandomAccessFile& file,
                                                   VocabIndex& index) {
  const Gguf& gguf = model.gguf;
  THIMBLE_ASSIGN_OR_RETURN(const std::string family, gguf.GetString("tokenizer.ggml.model"));
  const bool is_bpe = family == "gpt2";
  if (!is_bpe && family != "llama") {
    return UnimplementedError("tokenizer.ggml.model \"" + family + "\" is not one of gpt2, llama");
  }
  std::unique_ptr<Pretokenizer> pretokenizer;
  SpecialDefaults defaults;
  bool space_prefix = false;
  if (is_bpe) {
    THIMBLE_ASSIGN_OR_RETURN(const std::string name, gguf.GetStringOr("tokenizer.ggml.pre", ""));
    THIMBLE_ASSIGN_OR_RETURN(pretokenizer, Pretokenizer::Create(name));
    defaults.add_bos = pretokenizer->adds_bos();
  } else {
    THIMBLE_ASSIGN_OR_RETURN(space_prefix, gguf.GetBoolOr("tokenizer.ggml.add_space_prefix", true));
    // SentencePiece's own numbers for <s>, </s> and <unk>.
    defaults = {.add_bos = true, .add_eos = false, .bos = 1, .eos = 2, .unknown = 0};
  }

  THIMBLE_ASSIGN_OR_RETURN(const VocabArrays arrays, FindArrays(model, is_bpe));
  THIMBLE_ASSIGN_OR_RETURN(const bool built, index.IsBuilt());
  if (!built) THIMBLE_RETURN_IF_ERROR(BuildIndex(arrays, file, index));

  TokenizerParts parts;
  parts.index = &index;
  parts.n_tokens = static_cast<uint32_t>(arrays.tokens->count);
  parts.vocab_size = model.vocab_size;
  THIMBLE_ASSIGN_OR_RETURN(parts.specials,
                           SpecialTokens::Load(gguf, file, index, parts.n_tokens, defaults));
  return is_bpe ? MakeBpeTokenizer(std::move(parts), std::move(pretokenizer))
                : MakeSpmTokenizer(std::move(parts), space_prefix);
}

}  // namespace thimble
