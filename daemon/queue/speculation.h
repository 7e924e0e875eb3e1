// Speculation without a draft model: what follows the last tokens of a request is guessed from what
// followed them earlier in its own text (prompt lookup decoding) and, beside it, from what the
// model lately thought may follow the same token (successors.h); the guesses, a tree, are verified
// in one pass as extra rows. Where a pass waits for flash, more rows cost next to nothing, and
// every draft that is right saves a reading of the weights.
//
// How many drafts go along is decided for every pass from what has been measured: how often
// earlier guesses of the same kind were right, and what passes of so many rows have taken. A guess
// that is not tried still teaches: the token that is drawn tells whether it was right.
// Nothing here can change a text, only how fast it comes.
// Called by: the scheduler. Memory: Guess 72 bytes, GuessRecord 80 bytes, PassCost 440 bytes;
// DraftGrants 16 bytes for each guess that could be tried, reserved at construction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "daemon/queue/successors.h"
#include "daemon/run/draft_tree.h"

namespace thimble {

inline constexpr uint32_t kMaxDrafts = DraftTree::kMost;  // of one request in one pass

struct Guess {
  uint32_t match = 0;  // tokens of the end of the text that were found earlier
  uint32_t size = 0;
  std::array<int32_t, kMaxDrafts> tokens{};
};

// At most `limit` tokens that followed the latest of the longest earlier occurrences of the end of
// `text`; a text that has begun to repeat itself is taken to go on so. Empty where the last token
// is new. Looks at each token of the text once.
Guess GuessNext(std::span<const int32_t> text, uint32_t limit);

// How often guesses were right: those from the text by the length of the match they came from,
// where a draft behind others that were right stands on a match that is longer by these; those from
// the successors of a token by their rank.
class GuessRecord {
 public:
  // The chance that the draft at `index` of a guess is right, if those before it are.
  [[nodiscard]] float Chance(const Guess& guess, uint32_t index) const {
    return chance_[Class(guess.match + index)];
  }
  // The chance that the successor of this rank follows, where it is not the guess from the text.
  [[nodiscard]] float RankChance(size_t rank) const { return ranks_[rank].chance; }

  // `drawn` is what the text went on with, behind `last`: it tells of the guess's drafts up to the
  // first wrong one, and of the successors of each token.
  void Observe(const Guess& guess, const Successors& successors, int32_t last,
               std::span<const int32_t> drawn);

 private:
  static constexpr uint32_t kClasses = 8;
  static size_t Class(uint32_t match);

  // Where nothing is known: a guess from one token is seldom right, one from a long match often.
  std::array<float, kClasses> chance_ = {0.15F, 0.3F, 0.45F, 0.55F, 0.6F, 0.65F, 0.7F, 0.75F};
  struct Rank {
    float chance = 0;
    uint32_t observed = 0;
  };
  std::array<Rank, LikeliestTokens::kMost> ranks_ = {
      {{0.3F}, {0.12F}, {0.08F}, {0.05F}, {0.04F}, {0.03F}}};
};

// Seconds of a pass by its number of rows, as measured lately.
class PassCost {
 public:
  void Observe(uint32_t rows, double seconds);

  // Between two measured numbers of rows, on the line between them; above all of them, as the
  // largest: a pass with more rows is tried before it is thought dear. 0 where nothing is known.
  [[nodiscard]] double Seconds(uint32_t rows) const;

 private:
  struct Point {
    double rows = 0;
    double seconds = 0;
    uint64_t at = 0;  // observation; 0: none
  };
  static constexpr uint32_t kExact = 12;  // up to here each number of rows is a point
  static constexpr size_t kPoints = 18;
  static size_t Index(uint32_t rows);
  [[nodiscard]] bool Fresh(const Point& point) const;

  std::array<Point, kPoints> points_{};
  uint64_t now_ = 0;
};

// A request that generates, with what it could try.
struct DraftOffer {
  const Guess* guess = nullptr;
  const GuessRecord* record = nullptr;
  int32_t last = 0;           // the last token of its text
  uint32_t limit = 0;         // drafts, at most
  bool chain = false;         // only the guess from the text: its rows may have to be written
  DraftTree* tree = nullptr;  // out
};

// Which guesses a pass tries.
class DraftGrants {
 public:
  // Of passes of at most so many requests that generate, and so many drafts of all of them.
  DraftGrants(uint32_t most_offers, uint32_t most_drafts);

  // Grows the offers' trees by up to `room` drafts in a pass of `rows` rows without them, the
  // likeliest first, as many as make the most tokens a second. With no measure of the pass: none.
  void Grant(std::span<DraftOffer> offers, const Successors& successors, uint32_t rows,
             uint32_t room, const PassCost& cost);

 private:
  // A guess that may be the next one tried: it and all before it are right with this chance.
  struct Choice {
    float chance = 0;
    uint32_t offer = 0;
    int32_t token = 0;
    uint8_t parent = 0;     // its row
    bool of_guess = false;  // goes on as the guess from the text does
  };
  static bool Later(const Choice& a, const Choice& b) { return a.chance < b.chance; }
  // What may follow a row of an offer's tree, which is right with `chance`.
  void Propose(std::span<const DraftOffer> offers, const Successors& successors, uint32_t offer,
               uint32_t row, bool of_guess, float chance);

  std::vector<Choice> choices_;    // a heap; capacity reserved
  std::vector<uint32_t> granted_;  // the offer of each draft, in order
};

}  // namespace thimble
