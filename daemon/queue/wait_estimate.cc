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

void WaitEstimate::Measured(bool prompt, double seconds) {
  double& mean = prompt ? prompt_pass_ : token_pass_;
  mean = mean == 0 ? seconds : mean + kNewest * (seconds - mean);
}

double WaitEstimate::Seconds(const Work& work) const {
  const uint32_t prompt_passes = (work.prompt_tokens + prompt_chunk_ - 1) / prompt_chunk_;
  const double token_pass = token_pass_ == 0 ? prompt_pass_ : token_pass_;
  return prompt_passes * (prompt_pass_ == 0 ? token_pass_ : prompt_pass_) +
         work.tokens * token_pass;
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
