// Pre-tokenizers: the regular expressions that cut text into pieces before byte-level BPE, known by
// the names that GGUF files give in tokenizer.ggml.pre. They are the expressions the models were
// trained with, as llama.cpp has them too. PCRE2 runs them (no JIT: writable and executable pages
// are forbidden in hardened units, and cost more memory than a prompt's milliseconds are worth).
// Called by: the byte-level BPE tokenizer. Memory: 1 to 10 KiB of compiled expression and PCRE2's
// match frames (20 KiB to start with, at most kMaxMatchKiB).
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "storage/base/status.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace thimble {

class Pretokenizer {
 public:
  static constexpr unsigned kMaxMatchKiB = 256;

  // `name` as in tokenizer.ggml.pre; "" (the key is missing) is "default". UNIMPLEMENTED for a name
  // thimble does not know, quoting it.
  static Result<std::unique_ptr<Pretokenizer>> Create(std::string_view name);
  ~Pretokenizer();
  Pretokenizer(const Pretokenizer&) = delete;
  Pretokenizer& operator=(const Pretokenizer&) = delete;

  // Visits the pieces of `text` in order; together they are `text`. Runs of bytes that are not
  // valid UTF-8 are pieces of their own. Stops at the visitor's first error.
  using Visitor = std::function<Status(std::string_view piece)>;
  Status Split(std::string_view text, const Visitor& visit) const;

  // The model's rule that goes with the name: a piece that is a token as a whole is taken as it is,
  // whatever its merges (Llama 3).
  [[nodiscard]] bool ignore_merges() const { return ignore_merges_; }
  // Whether a text begins with BOS where the file does not say.
  [[nodiscard]] bool adds_bos() const { return adds_bos_; }

 private:
  Pretokenizer() = default;
  Status Compile(std::string_view expression);
  Status SplitValid(size_t stage, std::string_view text, const Visitor& visit) const;

  std::vector<pcre2_real_code_8*>
      stages_;  // applied one after the other, each to the pieces so far
  pcre2_real_match_data_8* match_ = nullptr;
  pcre2_real_match_context_8* context_ = nullptr;
  bool ignore_merges_ = false;
  bool adds_bos_ = false;
};

}  // namespace thimble
