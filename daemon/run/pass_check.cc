#include "daemon/run/pass_check.h"

#include <string>

namespace thimble {

Status CheckPass(const Model& model, const Plan& plan, std::span<const PassItem> items) {
  uint64_t rows = 0;
  uint64_t logits = 0;
  for (const PassItem& item : items) {
    if (item.sequence == nullptr || item.tokens.empty() || item.n_logits > item.tokens.size() ||
        (item.n_logits > 0 && item.sink == nullptr)) {
      return InternalError("begin a pass: an item without sequence, tokens or sink");
    }
    if (item.drafts != nullptr && (item.tokens.size() != size_t{1} + item.drafts->size ||
                                   item.n_logits != item.tokens.size())) {
      return InternalError("begin a pass: an item whose tokens are not one and its drafts");
    }
    for (const int32_t token : item.tokens) {
      if (token < 0 || static_cast<uint32_t>(token) >= model.vocab_size) {
        return InvalidArgumentError("begin a pass: token " + std::to_string(token) +
                                    " is outside the vocabulary of " +
                                    std::to_string(model.vocab_size));
      }
    }
    if (item.sequence->n_tokens + item.tokens.size() > model.context_tokens) {
      return OutOfRangeError(
          "begin a pass: position " + std::to_string(item.sequence->n_tokens + item.tokens.size()) +
          " is past the model's context of " + std::to_string(model.context_tokens) + " tokens");
    }
    rows += item.tokens.size();
    logits += item.n_logits;
  }
  if (items.empty() || rows > plan.max_rows || logits > plan.max_logit_rows) {
    return InternalError("begin a pass of " + std::to_string(rows) + " rows, " +
                         std::to_string(logits) + " of them with logits: the plan has room for " +
                         std::to_string(plan.max_rows) + " and " +
                         std::to_string(plan.max_logit_rows));
  }
  return {};
}

}  // namespace thimble
