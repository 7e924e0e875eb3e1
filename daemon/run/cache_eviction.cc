#include "daemon/run/cache_eviction.h"

#include <algorithm>
#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace thimble {

#if defined(__x86_64__) || defined(__i386__)

std::vector<Eviction> EvictionsHere() {
  constexpr unsigned kClflushopt = 1U << 23;  // of EBX, leaf 7
  constexpr unsigned kCldemote = 1U << 25;    // of ECX
  std::vector<Eviction> ways = {Eviction::kNone};
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return ways;
  if ((ecx & kCldemote) != 0) ways.push_back(Eviction::kDemote);
  if ((ebx & kClflushopt) != 0) ways.push_back(Eviction::kFlush);
  return ways;
}

void Evict(Eviction way, const std::byte* begin, size_t bytes) {
  constexpr size_t kLine = 64;
  const size_t before = reinterpret_cast<uintptr_t>(begin) % kLine;
  const std::byte* const end = begin + bytes;
  const std::byte* line = begin - before;
  if (way == Eviction::kDemote) {
    for (; line < end; line += kLine) asm volatile("cldemote %0" : : "m"(*line));
  } else if (way == Eviction::kFlush) {
    for (; line < end; line += kLine) asm volatile("clflushopt %0" : : "m"(*line));
  }
}

#else

std::vector<Eviction> EvictionsHere() { return {Eviction::kNone}; }
void Evict(Eviction /*way*/, const std::byte* /*begin*/, size_t /*bytes*/) {}

#endif

namespace {

// A window's part of what is known of the last few, and of many.
constexpr double kRecent = 0.2;
constexpr double kUsual = 0.02;

void Blend(double value, double part, double* average) {
  *average = *average == 0 ? value : *average + part * (value - *average);
}

}  // namespace

bool EvictionTrials::Used(uint64_t bytes) {
  window_bytes_ += bytes;
  return ways_.size() > 1 && window_bytes_ >= least_bytes_;
}

void EvictionTrials::EndWindow(uint64_t now_ns, uint64_t stall_ns) {
  const uint64_t used = std::exchange(window_bytes_, 0);
  const bool first = now_ns_ == 0;
  const auto took = static_cast<double>(now_ns - std::exchange(now_ns_, now_ns));
  const auto waited = static_cast<double>(stall_ns - std::exchange(stall_ns_, stall_ns));
  if (first || took <= 0) return;
  const double percent = 100 * waited / took;
  waited_percent_ += kRecent * (percent - waited_percent_);
  active_ = waited_percent_ > (active_ ? kEndPercent : kBeginPercent);
  if (!active_) {
    way_ = Eviction::kNone;
    trial_windows_ = 0;
    return;
  }
  // One that hardly waited had a pause in it, or a prompt to compute: it tells nothing.
  if (percent > kEndPercent) Count(static_cast<double>(used), took);
  way_ = trial_windows_ > 0 ? ways_[challenger_] : best_;
}

void EvictionTrials::Count(double used, double took_ns) {
  if (trial_windows_ == 0) {
    if (way_ == best_) {
      Blend(took_ns / used, kRecent, &best_ns_);
      Blend(took_ns / used, kUsual, &usual_ns_);
    }
    if (until_trial_ > 0) --until_trial_;
    if (until_trial_ == 0 || best_ns_ > kSudden * usual_ns_) BeginTrial();
    return;
  }
  // The first one's bytes were read over what was evicted, or not, before it.
  if (trial_windows_ > 1) {
    trial_used_ += used;
    trial_ns_ += took_ns;
  }
  if (++trial_windows_ > 1 + kMeasured) EndTrial();
}

void EvictionTrials::BeginTrial() {
  do {
    challenger_ = (challenger_ + 1) % ways_.size();
  } while (ways_[challenger_] == best_);
  trial_windows_ = 1;
  trial_used_ = trial_ns_ = 0;
}

void EvictionTrials::EndTrial() {
  trial_windows_ = 0;
  const Eviction challenger = ways_[challenger_];
  const double ns = trial_ns_ / trial_used_;
  if (ns * (challenger > best_ ? kWorthIt : 1 / kWorthIt) < best_ns_) {
    best_ = challenger;
    best_ns_ = ns;
    between_ = kFewestBetween;
  } else {
    between_ = std::min(2 * between_, kMostBetween);
  }
  usual_ns_ = best_ns_;
  until_trial_ = between_;
}

}  // namespace thimble
