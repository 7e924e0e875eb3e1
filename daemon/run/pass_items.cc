#include "daemon/run/pass_items.h"

#include <algorithm>
#include <cassert>

#include "daemon/run/stage_math.h"

namespace thimble {

PassItems::PassItems(const Model& model, const Plan& plan) : model_(model) {
  const size_t pairs = model.rope.dimensions / 2;
  items_.reserve(plan.max_rows);
  kv_rows_.reserve(plan.max_rows);
  logit_rows_.resize(plan.max_logit_rows);
  kept_tokens_.reserve(plan.max_logit_rows);
  // Not touched before they are used: most passes have few rows.
  cosine_ = std::make_unique_for_overwrite<float[]>(plan.max_rows * pairs);
  sine_ = std::make_unique_for_overwrite<float[]>(plan.max_rows * pairs);
}

void PassItems::Set(std::span<const PassItem> items) {
  items_.clear();
  for (const PassItem& item : items) items_.push_back({item, 0, 0, false});
  LayOut();
}

void PassItems::LayOut() {
  const size_t pairs = model_.rope.dimensions / 2;
  kv_rows_.clear();
  n_rows_ = 0;
  n_logit_rows_ = 0;
  for (ActiveItem& active : items_) {
    const PassItem& item = active.item;
    active.first_row = n_rows_;
    active.first_logit_row = n_logit_rows_;
    const auto n = static_cast<uint32_t>(item.tokens.size());
    for (uint32_t i = 0; i < n; ++i) {
      if (i + item.n_logits >= n) logit_rows_[n_logit_rows_++] = n_rows_ + i;
      if (pairs == 0) continue;
      RopeAngles(model_.rope, item.Position(i), &cosine_[(n_rows_ + i) * pairs],
                 &sine_[(n_rows_ + i) * pairs]);
    }
    kv_rows_.push_back({item.sequence, n});
    n_rows_ += n;
  }
}

// A tail on the disk has one row for a position.
void PassItems::CutTrees(const KvCache& kv) {
  bool cut = false;
  for (ActiveItem& active : items_) {
    PassItem& item = active.item;
    if (item.drafts == nullptr) continue;
    if (!kv.AppendsToDisk(*item.sequence, static_cast<uint32_t>(item.tokens.size()))) continue;
    item.CutToChain();
    cut = true;
  }
  if (cut) LayOut();
}

void PassItems::Drop(size_t index) {
  items_[index].dropped = true;
  items_[index].item.sequence = nullptr;
}

bool PassItems::all_dropped() const {
  return std::all_of(items_.begin(), items_.end(), [](const ActiveItem& a) { return a.dropped; });
}

void PassItems::Keep(PassItem& item, KvCache& kv) {
  if (item.sink == nullptr) return;
  const auto n_tokens = static_cast<uint32_t>(item.tokens.size());
  const uint32_t kept = item.sink->TokensToKeep(n_tokens);
  assert(kept >= 1 && kept <= n_tokens);
  if (item.drafts == nullptr) {
    item.tokens = item.tokens.first(kept);
    return;
  }
  const std::span<const uint8_t> rows = item.sink->RowsToKeep();
  assert(rows.size() == kept);
  for (const uint8_t row : rows) kept_tokens_.push_back(item.tokens[row]);
  item.tokens = std::span(kept_tokens_).last(rows.size());
  kv.KeepRows(*item.sequence, rows);
}

Status PassItems::Commit(KvCache& kv) {
  // All or none: what may fail comes first.
  kept_tokens_.clear();
  for (ActiveItem& active : items_) {
    if (active.dropped) continue;
    Keep(active.item, kv);
    THIMBLE_RETURN_IF_ERROR(kv.PrepareRows(*active.item.sequence, active.item.tokens));
  }
  for (const ActiveItem& active : items_) {
    if (!active.dropped) kv.CommitRows(*active.item.sequence, active.item.tokens);
  }
  return {};
}

}  // namespace thimble
