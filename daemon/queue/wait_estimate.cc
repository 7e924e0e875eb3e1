#include "daemon/queue/wait_estimate.h"

#include <algorithm>
#include <functional>

namespace thimble {
namespace {

// Of the newest pass in the mean: a change of load is seen within some ten passes.
constexpr double kNewest = 0.2;

}  // namespace

WaitEstimate::WaitEstimate(uint32_t max_active, uint32_t prompt_chunk)
    : max_active_(max_active), prompt_chunk_(prompt_chunk) {
  free_at_.reserve(max_active);
}

void WaitEstimate::Measured(uint32_t prompt_rows, double seconds) {
  double& mean = prompt_rows > 0 ? prompt_row_ : token_pass_;
  if (prompt_rows > 0) seconds = std::max(0.0, seconds - token_pass_) / prompt_rows;
  mean = mean == 0 ? seconds : mean + kNewest * (seconds - mean);
}

double WaitEstimate::Seconds(const Work& work) const {
  const uint32_t prompt_passes = (work.prompt_tokens + prompt_chunk_ - 1) / prompt_chunk_;
  return (prompt_passes + work.tokens) * token_pass_ + work.prompt_tokens * prompt_row_;
}

void WaitEstimate::Waits(std::span<const Work> active, std::span<const Work> queued,
                         std::vector<double>* seconds) {
  seconds->clear();
  free_at_.clear();
  for (const Work& work : active.first(std::min<size_t>(active.size(), max_active_))) {
    free_at_.push_back(Seconds(work));
  }
  free_at_.resize(max_active_, 0);
  const std::greater<> first_free;
  std::make_heap(free_at_.begin(), free_at_.end(), first_free);
  for (const Work& work : queued) {
    std::pop_heap(free_at_.begin(), free_at_.end(), first_free);
    seconds->push_back(free_at_.back());
    free_at_.back() += Seconds(work);
    std::push_heap(free_at_.begin(), free_at_.end(), first_free);
  }
  seconds->push_back(free_at_.front());
}

}  // namespace thimble
