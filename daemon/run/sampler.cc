#include "daemon/run/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "daemon/run/kernels.h"
#include "daemon/run/philox.h"

namespace thimble {
namespace {

// Logits that are looked at together, for one that is a candidate.
constexpr size_t kAtOnce = 128;

std::string Number(float value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g", static_cast<double>(value));
  return text.data();
}

Status OutOfRange(const char* field, float value, const char* range) {
  return InvalidArgumentError(std::string(field) + " " + Number(value) + ": must be within " +
                              range);
}

bool Penalizes(const SamplingOptions& options) {
  return options.repeat_last_n > 0 &&
         (options.repeat_penalty != 1 || options.presence_penalty != 0 ||
          options.frequency_penalty != 0);
}

uint32_t CandidatesOf(const SamplingOptions& options, uint32_t vocab_size) {
  return options.temperature == 0 ? 1 : std::min(options.top_k, vocab_size);
}

}  // namespace

Status ValidateSampling(const SamplingOptions& o) {
  // Written so that NaN fails every one.
  if (!(o.temperature >= 0 && o.temperature <= 100)) {
    return OutOfRange("temperature", o.temperature, "[0, 100]");
  }
  if (!(o.top_p > 0 && o.top_p <= 1)) return OutOfRange("top_p", o.top_p, "(0, 1]");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return OutOfRange("min_p", o.min_p, "[0, 1]");
  if (!(o.repeat_penalty > 0 && o.repeat_penalty <= 10)) {
    return OutOfRange("repeat_penalty", o.repeat_penalty, "(0, 10]");
  }
  if (o.repeat_last_n > 1024) {
    return InvalidArgumentError("repeat_last_n " + std::to_string(o.repeat_last_n) +
                                ": must be within [0, 1024]");
  }
  if (!(o.presence_penalty >= -2 && o.presence_penalty <= 2)) {
    return OutOfRange("presence_penalty", o.presence_penalty, "[-2, 2]");
  }
  if (!(o.frequency_penalty >= -2 && o.frequency_penalty <= 2)) {
    return OutOfRange("frequency_penalty", o.frequency_penalty, "[-2, 2]");
  }
  return {};
}

Sampler::Sampler(const SamplingOptions& options, uint32_t vocab_size, uint32_t slot,
                 StageStore* store)
    : options_(options), vocab_size_(vocab_size), penalties_(Penalizes(options)) {
  if (Narrow(options)) {
    narrow_.emplace(CandidatesOf(options, vocab_size));
  } else {
    wide_ = std::make_unique<WideSelection>(vocab_size, slot, store);
  }
  if (penalties_) seen_.reserve(options.repeat_last_n);
}

bool Sampler::Narrow(const SamplingOptions& options) {
  return options.temperature == 0 || (options.top_k >= 1 && options.top_k <= kMaxNarrow);
}

size_t Sampler::RowBytes(const SamplingOptions& options, uint32_t vocab_size) {
  return sizeof(Sampler) + CandidatesOf(options, vocab_size) * sizeof(Candidate) +
         (Penalizes(options) ? options.repeat_last_n * sizeof(Seen) : 0);
}

void Sampler::Begin(uint32_t index, std::span<const int32_t> history,
                    std::span<const int32_t> banned, std::span<const int32_t> drafts) {
  index_ = index;
  banned_ = banned;
  next_id_ = 0;
  next_seen_ = 0;
  FindNextBanned(-1);
  raw_.Clear();
  likeliest_.Clear();
  if (narrow_) narrow_->Clear();
  if (wide_) wide_->Clear();

  seen_.clear();
  if (!penalties_) return;
  const size_t n_drafts = std::min<size_t>(drafts.size(), options_.repeat_last_n);
  const size_t n = std::min<size_t>(history.size(), options_.repeat_last_n - n_drafts);
  for (const std::span<const int32_t> part : {history.last(n), drafts.last(n_drafts)}) {
    for (const int32_t id : part) {
      Seen seen{};
      seen.id = id;
      seen.count = 1;
      if (id >= 0) seen_.push_back(seen);
    }
  }
  std::sort(seen_.begin(), seen_.end(), [](const Seen& a, const Seen& b) { return a.id < b.id; });
  size_t last = 0;
  for (size_t i = 1; i < seen_.size(); ++i) {
    if (seen_[i].id == seen_[last].id) {
      ++seen_[last].count;
    } else {
      seen_[++last] = seen_[i];
    }
  }
  if (!seen_.empty()) seen_.resize(last + 1);
}

// A handful of ids, in any order: looked through again each time one of them has come by.
void Sampler::FindNextBanned(int64_t after) {
  next_banned_ = std::numeric_limits<int64_t>::max();
  for (const int32_t id : banned_) {
    if (id > after) next_banned_ = std::min<int64_t>(next_banned_, id);
  }
}

// As llama.cpp: the sign decides whether the repetition penalty divides or multiplies.
float Sampler::Penalize(float logit, uint32_t count) const {
  logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
  return logit -
         (static_cast<float>(count) * options_.frequency_penalty + options_.presence_penalty);
}

Status Sampler::OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) {
  if (row != 0 || first_token != next_id_ || logits.size() > vocab_size_ - next_id_) {
    return InternalError("sample: logits of row " + std::to_string(row) + ", tokens " +
                         std::to_string(first_token) + " to " +
                         std::to_string(uint64_t{first_token} + logits.size()) +
                         ": expected row 0 from token " + std::to_string(next_id_) + " of " +
                         std::to_string(vocab_size_));
  }
  raw_.Add(logits);
  while (!logits.empty()) {
    const std::span<const float> some = logits.first(std::min(logits.size(), kAtOnce));
    logits = logits.subspan(some.size());
    if (narrow_) {
      const float largest = Largest(some.data(), some.size());
      likeliest_.Offer(next_id_, some, largest);
      if (Ignores(some.size(), largest)) {
        next_id_ += static_cast<uint32_t>(some.size());
        continue;
      }
    }
    for (const float raw : some) THIMBLE_RETURN_IF_ERROR(Offer(raw));
  }
  return {};
}

// Most logits of a row are below the candidates, and nothing is to be done about them.
bool Sampler::Ignores(size_t n, float largest) const {
  const int64_t end = int64_t{next_id_} + static_cast<int64_t>(n);
  if (next_banned_ < end) return false;
  if (next_seen_ < seen_.size() && seen_[next_seen_].id < end) return false;
  return narrow_->Ignores(largest);
}

// The logit of the next id.
Status Sampler::Offer(float raw) {
  const auto id = static_cast<int32_t>(next_id_++);
  float logit = raw;
  if (next_seen_ < seen_.size() && seen_[next_seen_].id == id) {
    Seen& seen = seen_[next_seen_++];
    logit = Penalize(raw, seen.count);
    seen.raw = raw;
  }
  if (id == next_banned_) {
    logit = std::numeric_limits<float>::quiet_NaN();
    FindNextBanned(id);
  }
  if (wide_) return wide_->Offer(logit);
  if (!std::isnan(logit)) narrow_->Offer(id, logit);
  return {};
}

Result<Sampler::Choice> Sampler::Finish() {
  if (next_id_ != vocab_size_) {
    return InternalError("sample token " + std::to_string(index_) + ": " +
                         std::to_string(next_id_) + " of " + std::to_string(vocab_size_) +
                         " logits arrived");
  }
  const double uniform = UniformDraw(options_.seed, index_);
  std::optional<Candidate> drawn;
  if (narrow_) {
    drawn = narrow_->Draw(options_, uniform);
  } else {
    THIMBLE_ASSIGN_OR_RETURN(drawn, wide_->Draw(options_, uniform));
  }
  if (!drawn) {
    return DataLossError("sample token " + std::to_string(index_) + ": each of the " +
                         std::to_string(vocab_size_) + " logits is NaN or banned");
  }
  float raw = drawn->logit;
  const auto seen = std::lower_bound(seen_.begin(), seen_.end(), drawn->id,
                                     [](const Seen& s, int32_t id) { return s.id < id; });
  if (seen != seen_.end() && seen->id == drawn->id) raw = seen->raw;
  const double log_sum = raw_.Finish();
  const double below_max =
      raw == raw_.max() ? 0.0 : static_cast<double>(raw) - static_cast<double>(raw_.max());
  return Choice{drawn->id, static_cast<float>(below_max - log_sum)};
}

}  // namespace thimble
