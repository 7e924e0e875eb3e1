#include "daemon/queue/speculation.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace thimble {
namespace {

// Longer matches are not told apart.
constexpr size_t kLongestMatch = 8;
// A draft less likely than this is not worth the keys and values that it writes.
constexpr float kLeastChance = 0.1F;
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

// Where nothing is known: a guess from one token is seldom right, one from a long match often.
GuessRecord::GuessRecord() : chance_{0.15F, 0.3F, 0.45F, 0.55F, 0.6F, 0.65F, 0.7F, 0.75F} {}

size_t GuessRecord::Class(uint32_t match) {
  return std::min<uint32_t>(std::max<uint32_t>(match, 1), kClasses) - 1;
}

void GuessRecord::Observe(const Guess& guess, std::span<const int32_t> drawn) {
  constexpr float kWeight = 1.0F / 12;
  const size_t n = std::min<size_t>(guess.size, drawn.size());
  for (size_t i = 0; i < n; ++i) {
    const bool right = guess.tokens[i] == drawn[i];
    float& chance = chance_[Class(guess.match + static_cast<uint32_t>(i))];
    chance += kWeight * ((right ? 1.0F : 0.0F) - chance);
    if (!right) return;
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

void GrantDrafts(std::span<DraftOffer> offers, uint32_t rows, uint32_t room, const PassCost& cost) {
  for (DraftOffer& offer : offers) offer.granted = 0;
  const double alone = cost.Seconds(rows);
  if (alone <= 0) return;
  // Each offer's chance that its next draft, and all before it, are right. Requests of one pass are
  // few, and drafts too: the likeliest is looked for anew each time.
  const auto chance = [](const DraftOffer& offer) {
    float p = 1;
    for (uint32_t i = 0; i <= offer.granted; ++i) p *= offer.record->Chance(*offer.guess, i);
    return p;
  };
  double tokens = rows;
  double best = kLeastGain * tokens / alone;
  uint32_t granted = 0;
  uint32_t best_granted = 0;
  std::array<uint16_t, 64> order{};  // the offer of each draft
  room = std::min<uint32_t>(room, order.size());
  while (granted < room) {
    size_t likeliest = offers.size();
    float p = kLeastChance;
    for (size_t i = 0; i < offers.size(); ++i) {
      if (offers[i].granted >= offers[i].limit) continue;
      const float its = chance(offers[i]);
      if (its > p || (its == p && likeliest == offers.size())) {
        p = its;
        likeliest = i;
      }
    }
    if (likeliest == offers.size()) break;
    ++offers[likeliest].granted;
    order[granted++] = static_cast<uint16_t>(likeliest);
    tokens += static_cast<double>(p);
    const double seconds = cost.Seconds(rows + granted);
    if (tokens / seconds > best) {
      best = tokens / seconds;
      best_granted = granted;
    }
  }
  while (granted > best_granted) --offers[order[--granted]].granted;
}

}  // namespace thimble
