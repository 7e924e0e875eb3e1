#include "daemon/model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <string>

#include "daemon/model/utf8.h"

namespace thimble {
namespace {

// In the expressions below `\s` is written %s, and `\S` %S: PCRE2's own also take U+180E, which is
// no white space in Unicode (since 6.3), nor to the tokenizers the models were trained with.
constexpr std::string_view kWhite =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// GPT-2's (encoder.py). What it leaves unmatched, single white space before a word, is a piece too:
// the original's last branch, `|\s+`.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^%s\p{L}\p{N}]+|[%s]+(?![%S]))";
// Llama 3's, and Qwen 2's, which differs in the number of digits that stay together.
constexpr std::string_view kLlama3 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^%s\p{L}\p{N}]+[\r\n]*|[%s]*[\r\n]+|[%s]+(?![%S])|[%s]+)";
constexpr std::string_view kQwen2 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^%s\p{L}\p{N}]+[\r\n]*|[%s]*[\r\n]+|[%s]+(?![%S])|[%s]+)";

struct NamedPretokenizer {
  std::string_view name;
  std::array<std::string_view, 4> stages;
  bool ignore_merges = false;
  bool adds_bos = false;
};

constexpr std::array<NamedPretokenizer, 7> kPretokenizers = {{
    {"gpt-2", {kGpt2}},
    {"smollm", {R"(\p{N})", kGpt2}},
    {"llama-bpe", {kLlama3}, true, true},
    {"llama-v3", {kLlama3}, true, true},
    {"llama3", {kLlama3}, true, true},
    {"qwen2", {kQwen2}},
    {"default", {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
}};

// Puts kWhite in the place of %s (inside of a class) and the complement of [%S].
std::string Expand(std::string_view expression) {
  std::string expanded;
  for (size_t i = 0; i < expression.size(); ++i) {
    if (expression.substr(i, 4) == "[%S]") {
      expanded.append("[^").append(kWhite).append("]");
      i += 3;
    } else if (expression.substr(i, 2) == "%s") {
      expanded.append(kWhite);
      i += 1;
    } else {
      expanded.push_back(expression[i]);
    }
  }
  return expanded;
}

std::string Pcre2Message(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Result<std::unique_ptr<Pretokenizer>> Pretokenizer::Create(std::string_view name) {
  if (name.empty()) name = "default";
  for (const NamedPretokenizer& known : kPretokenizers) {
    if (known.name != name) continue;
    std::unique_ptr<Pretokenizer> made(new Pretokenizer());
    made->ignore_merges_ = known.ignore_merges;
    made->adds_bos_ = known.adds_bos;
    for (const std::string_view stage : known.stages) {
      if (!stage.empty()) THIMBLE_RETURN_IF_ERROR(made->Compile(stage));
    }
    made->match_ = pcre2_match_data_create(1, nullptr);  // no groups: the match alone
    made->context_ = pcre2_match_context_create(nullptr);
    if (made->match_ == nullptr || made->context_ == nullptr) {
      return ResourceExhaustedError("make pre-tokenizer " + std::string(name) + ": out of memory");
    }
    pcre2_set_heap_limit(made->context_, kMaxMatchKiB);
    return made;
  }
  return UnimplementedError("pre-tokenizer \"" + std::string(name) +
                            "\" (tokenizer.ggml.pre) is not one of gpt-2, smollm, llama-bpe, "
                            "llama-v3, llama3, qwen2, default");
}

Pretokenizer::~Pretokenizer() {
  for (pcre2_code* code : stages_) pcre2_code_free(code);
  pcre2_match_data_free(match_);
  pcre2_match_context_free(context_);
}

Status Pretokenizer::Compile(std::string_view expression) {
  const std::string expanded = Expand(expression);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    return InternalError("compile " + expanded + " at " + std::to_string(offset) + ": " +
                         Pcre2Message(error));
  }
  stages_.push_back(code);
  return {};
}

Status Pretokenizer::Split(std::string_view text, const Visitor& visit) const {
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin;
    while (const size_t bytes = Utf8CharBytes(text.substr(end))) end += bytes;
    if (end > begin) THIMBLE_RETURN_IF_ERROR(SplitValid(0, text.substr(begin, end - begin), visit));
    begin = end;
    while (end < text.size() && Utf8CharBytes(text.substr(end)) == 0) ++end;
    if (end > begin) THIMBLE_RETURN_IF_ERROR(visit(text.substr(begin, end - begin)));
    begin = end;
  }
  return {};
}

// `text` is valid UTF-8, and the whole subject: a look-ahead does not see past a piece's end.
Status Pretokenizer::SplitValid(size_t stage, std::string_view text, const Visitor& visit) const {
  if (stage == stages_.size()) return visit(text);
  size_t done = 0;  // up to here, pieces have been passed on
  size_t at = 0;    // where the next match is looked for
  while (at < text.size()) {
    const int count = pcre2_match(stages_[stage], reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), at, PCRE2_NO_UTF_CHECK, match_, context_);
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) {
      return ResourceExhaustedError("split " + std::to_string(text.size()) + " bytes of text at " +
                                    std::to_string(at) + ": " + Pcre2Message(count));
    }
    // Copied: the next stage uses the same match data.
    const size_t begin = pcre2_get_ovector_pointer(match_)[0];
    const size_t end = pcre2_get_ovector_pointer(match_)[1];
    if (begin > done) {
      THIMBLE_RETURN_IF_ERROR(SplitValid(stage + 1, text.substr(done, begin - done), visit));
    }
    THIMBLE_RETURN_IF_ERROR(SplitValid(stage + 1, text.substr(begin, end - begin), visit));
    done = at = end;  // none of the expressions matches nothing: end > begin
  }
  if (done < text.size()) {
    THIMBLE_RETURN_IF_ERROR(SplitValid(stage + 1, text.substr(done), visit));
  }
  return {};
}

}  // namespace thimble
