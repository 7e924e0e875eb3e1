#include "daemon/run/sampler_wide.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>
#include <span>

#include "daemon/plan/values.h"

namespace thimble {
namespace {

constexpr uint32_t kSignBit = 0x80000000;

// Integers in the order of the floats; adding zero makes one of the two zeros.
uint32_t KeyOf(float logit) {
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0F);
  return (bits & kSignBit) != 0 ? ~bits : bits | kSignBit;
}

float LogitOf(uint32_t key) {
  return std::bit_cast<float>((key & kSignBit) != 0 ? key & ~kSignBit : ~key);
}

}  // namespace

class WideSelection::Kept {
 public:
  explicit Kept(const Cut& cut) : cut_(cut) {}
  // To be asked once for every id, in order.
  bool operator()(uint32_t key) {
    if (key != cut_.key) return key > cut_.key;
    return seen_++ < cut_.ties;
  }

 private:
  const Cut cut_;
  uint32_t seen_ = 0;
};

WideSelection::WideSelection(uint32_t vocab_size, uint32_t slot, StageStore* store)
    : vocab_size_(vocab_size),
      slot_(slot),
      store_(store),
      buffer_(std::min(vocab_size, kPieceLogits)) {
  assert(store != nullptr || vocab_size <= kPieceLogits);
}

void WideSelection::Clear() {
  piece_ = 0;
  next_id_ = 0;
  any_ = false;
}

uint32_t WideSelection::PieceSize(uint32_t piece) const {
  return std::min(kPieceLogits, vocab_size_ - piece * kPieceLogits);
}

Status WideSelection::WritePiece() {
  return store_->Write(static_cast<uint32_t>(Value::kLogits), (slot_ << 16) + piece_,
                       std::as_bytes(std::span(buffer_).first(PieceSize(piece_))));
}

Status WideSelection::LoadPiece(uint32_t piece) {
  if (piece == piece_) return {};
  // The buffer is no piece's until the read has succeeded.
  piece_ = UINT32_MAX;
  THIMBLE_RETURN_IF_ERROR(
      store_->Read(static_cast<uint32_t>(Value::kLogits), (slot_ << 16) + piece,
                   std::as_writable_bytes(std::span(buffer_).first(PieceSize(piece)))));
  piece_ = piece;
  return {};
}

Status WideSelection::Offer(float logit) {
  buffer_[next_id_ % kPieceLogits] = logit;
  if (!std::isnan(logit)) {
    max_ = any_ ? std::max(max_, logit) : logit;
    any_ = true;
  }
  ++next_id_;
  if (vocab_size_ <= kPieceLogits) return {};
  if (next_id_ % kPieceLogits == 0 || next_id_ == vocab_size_) {
    piece_ = (next_id_ - 1) / kPieceLogits;
    return WritePiece();
  }
  return {};
}

template <typename Visit>
Status WideSelection::ForEach(Visit visit) {
  for (uint32_t piece = 0; piece * kPieceLogits < vocab_size_; ++piece) {
    THIMBLE_RETURN_IF_ERROR(LoadPiece(piece));
    const uint32_t first = piece * kPieceLogits;
    for (uint32_t i = 0; i < PieceSize(piece); ++i) {
      if (!std::isnan(buffer_[i])) visit(first + i, buffer_[i]);
    }
  }
  return {};
}

template <typename Measure>
Status WideSelection::CutWhere(double target, Measure measure, Cut* within) {
  uint32_t prefix = 0;  // the bits of the cut's key found so far
  double above = 0;     // the measure of what ranks before every key with this prefix
  for (int shift = 24; shift >= 0; shift -= 8) {
    histogram_.fill(0);
    Kept kept(*within);
    THIMBLE_RETURN_IF_ERROR(ForEach([&](uint32_t, float logit) {
      const uint32_t key = KeyOf(logit);
      if (!kept(key)) return;
      if (shift < 24 && key >> (shift + 8) != prefix) return;
      histogram_[(key >> shift) & 0xFF] += measure(logit);
    }));
    // Where rounding keeps the sum below the target, the last bin with any measure is the cut's.
    uint32_t found = 256;
    double sum = above;
    for (uint32_t bin = 256; bin-- > 0;) {
      if (histogram_[bin] == 0) continue;
      found = bin;
      above = sum;
      sum += histogram_[bin];
      if (sum >= target) break;
    }
    if (found == 256) return {};
    prefix = (prefix << 8) | found;
  }
  const double each = measure(LogitOf(prefix));
  uint32_t ties = 1;
  while (ties < vocab_size_ && above + static_cast<double>(ties) * each < target) ++ties;
  if (prefix == within->key) ties = std::min(ties, within->ties);
  *within = {prefix, ties};
  return {};
}

Result<std::optional<Candidate>> WideSelection::Draw(const SamplingOptions& options,
                                                     double uniform) {
  assert(next_id_ == vocab_size_ && options.temperature > 0);
  if (!any_) return std::optional<Candidate>();
  Cut cut;
  if (options.top_k > 0 && options.top_k < vocab_size_) {
    THIMBLE_RETURN_IF_ERROR(CutWhere(
        options.top_k, [](float) { return 1.0; }, &cut));
  }
  if (options.top_p < 1) {
    double total = 0;
    Kept kept(cut);
    THIMBLE_RETURN_IF_ERROR(ForEach([&](uint32_t, float logit) {
      if (kept(KeyOf(logit))) total += Weight(logit, max_, 1.0);
    }));
    THIMBLE_RETURN_IF_ERROR(CutWhere(
        static_cast<double>(options.top_p) * total,
        [this](float logit) { return Weight(logit, max_, 1.0); }, &cut));
  }

  const double log_min_p = options.min_p > 0 ? std::log(static_cast<double>(options.min_p))
                                             : -std::numeric_limits<double>::infinity();
  // 0 for what is cut off.
  const auto weight = [&](Kept& kept, float logit) {
    if (!kept(KeyOf(logit)) || !MinPKeeps(logit, max_, log_min_p)) return 0.0;
    return Weight(logit, max_, options.temperature);
  };
  double total = 0;
  Kept summed(cut);
  THIMBLE_RETURN_IF_ERROR(ForEach([&](uint32_t, float logit) { total += weight(summed, logit); }));

  const double target = uniform * total;
  double mass = 0;
  std::optional<Candidate> drawn;
  Kept kept(cut);
  THIMBLE_RETURN_IF_ERROR(ForEach([&](uint32_t id, float logit) {
    if (mass > target) return;
    const double w = weight(kept, logit);
    if (w == 0) return;
    drawn = Candidate{logit, static_cast<int32_t>(id)};  // the last one where rounding ends below
    mass += w;
  }));
  return drawn;
}

}  // namespace thimble
