// Narrow sampling: the k best candidates of a row of logits, kept while the row streams by, and the
// draw among them. Exact: what top-k would cut is never needed again.
// Called by: Sampler. Memory: 8 bytes a candidate, 8 KiB at most, reserved at construction.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/run/sampling_options.h"
#include "daemon/run/selection.h"

namespace thimble {

class NarrowSelection {
 public:
  explicit NarrowSelection(uint32_t k) : k_(k) { best_.reserve(k); }

  void Clear() { best_.clear(); }

  // Ids come in rising order, so that of equal logits the one already here ranks first.
  void Offer(int32_t id, float logit) {
    if (best_.size() < k_) {
      best_.push_back({logit, id});
      std::push_heap(best_.begin(), best_.end(), RanksBefore);
    } else if (logit > best_.front().logit) {
      std::pop_heap(best_.begin(), best_.end(), RanksBefore);
      best_.back() = {logit, id};
      std::push_heap(best_.begin(), best_.end(), RanksBefore);
    }
  }

  // Whether none of logits up to `largest`, with ids to come, would be kept.
  [[nodiscard]] bool Ignores(float largest) const {
    return best_.size() == k_ && largest <= best_.front().logit;
  }

  // `uniform` is in [0, 1). nullopt where nothing was offered. To be called once after a row.
  std::optional<Candidate> Draw(const SamplingOptions& options, double uniform);

 private:
  const uint32_t k_;
  std::vector<Candidate> best_;  // a heap whose front ranks last
};

}  // namespace thimble
