// The items of a pass and their rows: the position of each in its sequence, whether it wants
// logits, and at the end which ones stay. Called by: the runner. Memory: about 1 KiB a row of the
// plan's most, reserved at construction.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "daemon/run/kv_reads.h"
#include "daemon/run/runner.h"
#include "storage/base/status.h"
#include "storage/kv_cache.h"

namespace thimble {

class PassItems {
 public:
  PassItems(const Model& model, const Plan& plan);

  // A new pass of these items, which CheckPass has found good.
  void Set(std::span<const PassItem> items);
  // After KvCache::BringRows: of trees whose rows are not all in RAM, only the drafts are left
  // that follow one another.
  void CutTrees(const KvCache& kv);
  // Lets go of an item.
  void Drop(size_t index);

  [[nodiscard]] std::span<ActiveItem> items() { return items_; }
  [[nodiscard]] bool all_dropped() const;
  [[nodiscard]] std::span<const KvPassRows> kv_rows() const { return kv_rows_; }
  [[nodiscard]] uint32_t size() const { return n_rows_; }
  [[nodiscard]] uint32_t n_logit_rows() const { return n_logit_rows_; }
  [[nodiscard]] const uint32_t* logit_rows() const { return logit_rows_.data(); }
  // [size()][rope.dimensions / 2], of each row's position.
  [[nodiscard]] const float* cosine() const { return cosine_.get(); }
  [[nodiscard]] const float* sine() const { return sine_.get(); }

  // Every logit has been delivered: what the sinks keep becomes part of the sequences, of all or of
  // none.
  Status Commit(KvCache& kv);

 private:
  void LayOut();
  // The tokens that the item's sink keeps.
  void Keep(PassItem& item, KvCache& kv);

  const Model& model_;
  std::vector<ActiveItem> items_;
  std::vector<KvPassRows> kv_rows_;
  uint32_t n_rows_ = 0;
  uint32_t n_logit_rows_ = 0;
  std::vector<uint32_t> logit_rows_;
  std::vector<int32_t> kept_tokens_;  // of trees
  std::unique_ptr<float[]> cosine_;
  std::unique_ptr<float[]> sine_;
};

}  // namespace thimble
