#include "daemon/queue/speculation.h"

#include <algorithm>
#include <bit>

namespace thimble {
namespace {

// Longer matches are not told apart.
constexpr size_t kLongestMatch = 8;
// A draft less likely than this is not worth its row, however cheap that seems to be.
constexpr float kLeastChance = 0.01F;
// The same where it may write keys and values to the disk.
constexpr float kLeastChainChance = 0.1F;
// Of successors there are many to observe, and most are wrong: what is known beforehand counts as
// much as kPrior of them, and later ones push out those before the last kMostObserved or so.
constexpr float kPrior = 8;
constexpr uint32_t kMostObserved = 56;
// Measures scatter by some percent: drafts must win by more.
constexpr double kLeastGain = 1.03;
// Observations after which a pass's cost has to be measured again.
constexpr uint64_t kFresh = 512;

}  // namespace

Guess GuessNext(std::span<const int32_t> text, uint32_t limit) {
  Guess guess;
  if (text.size() < 2 || limit == 0) return guess;
  const size_t last = text.size() - 1;
  size_t found = 0;  // where the match ends
  for (size_t end = last; end-- > 0 && guess.match < kLongestMatch;) {
    if (text[end] != text[last]) continue;
    const size_t most = std::min(kLongestMatch, end + 1);
    uint32_t match = 1;
    while (match < most && text[end - match] == text[last - match]) ++match;
    if (match <= guess.match) continue;
    guess.match = match;
    found = end;
  }
  if (guess.match == 0) return guess;
  guess.size = std::min(limit, kMaxDrafts);
  const size_t period = last - found;
  for (uint32_t i = 0; i < guess.size; ++i) {
    guess.tokens[i] = i < period ? text[found + 1 + i] : guess.tokens[i - period];
  }
  return guess;
}

size_t GuessRecord::Class(uint32_t match) {
  return std::min<uint32_t>(std::max<uint32_t>(match, 1), kClasses) - 1;
}

void GuessRecord::Observe(const Guess& guess, const Successors& successors, int32_t last,
                          std::span<const int32_t> drawn) {
  constexpr float kWeight = 1.0F / 12;
  bool of_guess = true;  // all before was as guessed
  for (size_t i = 0; i < drawn.size(); ++i) {
    of_guess = of_guess && i < guess.size;
    const std::span<const int32_t> after = successors.After(i == 0 ? last : drawn[i - 1]);
    for (size_t rank = 0; rank < after.size(); ++rank) {
      if (of_guess && after[rank] == guess.tokens[i]) continue;
      Rank& its = ranks_[rank];
      its.observed = std::min(its.observed + 1, kMostObserved);
      const float right = after[rank] == drawn[i] ? 1.0F : 0.0F;
      its.chance += (right - its.chance) / (kPrior + static_cast<float>(its.observed));
    }
    if (!of_guess) continue;
    of_guess = guess.tokens[i] == drawn[i];
    float& chance = chance_[Class(guess.match + static_cast<uint32_t>(i))];
    chance += kWeight * ((of_guess ? 1.0F : 0.0F) - chance);
  }
}

size_t PassCost::Index(uint32_t rows) {
  if (rows <= kExact) return rows == 0 ? 0 : rows - 1;
  // 13..31, 32..63, 64..127, 128..255, 256..511, more.
  const auto octave = static_cast<size_t>(std::bit_width(rows)) - 1;
  return std::min(kPoints - 1, kExact + std::max<size_t>(octave, 4) - 4);
}

bool PassCost::Fresh(const Point& point) const { return point.at != 0 && now_ - point.at < kFresh; }

void PassCost::Observe(uint32_t rows, double seconds) {
  ++now_;
  Point& point = points_[Index(rows)];
  if (!Fresh(point)) {
    point = {static_cast<double>(rows), seconds, now_};
    return;
  }
  // A pass that was held up says little of the next one.
  const double weight = seconds < point.seconds ? 0.5 : 0.125;
  point.rows += weight * (rows - point.rows);
  point.seconds += weight * (seconds - point.seconds);
  point.at = now_;
}

double PassCost::Seconds(uint32_t rows) const {
  const Point* below = nullptr;
  const Point* above = nullptr;
  for (const Point& point : points_) {
    if (!Fresh(point)) continue;
    if (point.rows <= rows) below = &point;
    if (point.rows >= rows && above == nullptr) above = &point;
  }
  if (below == nullptr) return above == nullptr ? 0 : above->seconds;
  if (above == nullptr || above->rows <= below->rows) return below->seconds;
  const double part = (rows - below->rows) / (above->rows - below->rows);
  // More rows are never cheaper: where they seem so, the measures have aged differently.
  return below->seconds + part * std::max(0.0, above->seconds - below->seconds);
}

DraftGrants::DraftGrants(uint32_t most_offers, uint32_t most_drafts) {
  choices_.reserve(size_t{most_offers + most_drafts} * (1 + LikeliestTokens::kMost));
  granted_.reserve(most_drafts);
}

void DraftGrants::Propose(std::span<const DraftOffer> offers, const Successors& successors,
                          uint32_t offer, uint32_t row, bool of_guess, float chance) {
  const DraftOffer& o = offers[offer];
  const uint32_t depth = o.tree->Depth(row);
  const int32_t token = row == 0 ? o.last : o.tree->tokens[row - 1];
  const auto propose = [&](int32_t next, float its, bool goes_on) {
    if (its < (o.chain ? kLeastChainChance : kLeastChance)) return;
    choices_.push_back({its, offer, next, static_cast<uint8_t>(row), goes_on});
    std::push_heap(choices_.begin(), choices_.end(), Later);
  };
  of_guess = of_guess && depth < o.guess->size;
  if (of_guess) propose(o.guess->tokens[depth], chance * o.record->Chance(*o.guess, depth), true);
  if (o.chain) return;
  const std::span<const int32_t> after = successors.After(token);
  for (size_t rank = 0; rank < after.size(); ++rank) {
    if (of_guess && after[rank] == o.guess->tokens[depth]) continue;
    propose(after[rank], chance * o.record->RankChance(rank), false);
  }
}

void DraftGrants::Grant(std::span<DraftOffer> offers, const Successors& successors, uint32_t rows,
                        uint32_t room, const PassCost& cost) {
  for (DraftOffer& offer : offers) offer.tree->size = 0;
  const double alone = cost.Seconds(rows);
  if (alone <= 0) return;
  choices_.clear();
  granted_.clear();
  for (uint32_t i = 0; i < offers.size(); ++i) Propose(offers, successors, i, 0, true, 1);
  double tokens = rows;
  double best = kLeastGain * tokens / alone;
  size_t best_granted = 0;
  while (granted_.size() < room && !choices_.empty()) {
    std::pop_heap(choices_.begin(), choices_.end(), Later);
    const Choice choice = choices_.back();
    choices_.pop_back();
    const DraftOffer& offer = offers[choice.offer];
    if (offer.tree->size >= offer.limit) continue;
    const uint32_t row = offer.tree->Add(choice.token, choice.parent);
    granted_.push_back(choice.offer);
    tokens += static_cast<double>(choice.chance);
    const double seconds = cost.Seconds(rows + static_cast<uint32_t>(granted_.size()));
    if (tokens / seconds > best) {
      best = tokens / seconds;
      best_granted = granted_.size();
    }
    Propose(offers, successors, choice.offer, row, choice.of_guess, choice.chance);
  }
  // A tree's last draft is the one it was granted last, which has none behind it.
  for (; granted_.size() > best_granted; granted_.pop_back()) --offers[granted_.back()].tree->size;
  for (DraftOffer& offer : offers) *offer.tree = offer.tree->DepthFirst();
}

}  // namespace thimble
