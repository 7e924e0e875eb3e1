// Speculation without a draft model: what follows the last tokens of a request is guessed from what
// followed them earlier in its own text (prompt lookup decoding), and the guesses are verified in
// one pass as extra rows. Where a pass waits for flash, more rows cost next to nothing, and every
// draft that is right saves a reading of the weights.
//
// How many drafts go along is decided for every pass from what has been measured: how often
// earlier guesses from a match as long were right, and what passes of so many rows have taken. A
// guess that is not tried still teaches: the token that is drawn tells whether it was right.
// Nothing here can change a text, only how fast it comes.
// Called by: the scheduler. Memory: Guess 72 bytes, GuessRecord 48 bytes, PassCost 440 bytes;
// nothing is allocated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thimble {

inline constexpr uint32_t kMaxDrafts = 16;  // of one request in one pass

struct Guess {
  uint32_t match = 0;  // tokens of the end of the text that were found earlier
  uint32_t size = 0;
  std::array<int32_t, kMaxDrafts> tokens{};

  [[nodiscard]] std::span<const int32_t> first(uint32_t n) const {
    return std::span(tokens).first(n);
  }
};

// At most `limit` tokens that followed the latest of the longest earlier occurrences of the end of
// `text`; a text that has begun to repeat itself is taken to go on so. Empty where the last token
// is new. Looks at each token of the text once.
Guess GuessNext(std::span<const int32_t> text, uint32_t limit);

// How often guesses were right, by the length of the match they came from. A draft behind others
// that were right stands on a match that is longer by these.
class GuessRecord {
 public:
  GuessRecord();

  // The chance that the draft at `index` of a guess is right, if those before it are.
  [[nodiscard]] float Chance(const Guess& guess, uint32_t index) const {
    return chance_[Class(guess.match + index)];
  }

  // `drawn` is what the text went on with: it tells of the drafts up to the first wrong one.
  void Observe(const Guess& guess, std::span<const int32_t> drawn);

 private:
  static constexpr uint32_t kClasses = 8;
  static size_t Class(uint32_t match);

  std::array<float, kClasses> chance_;
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
  uint32_t limit = 0;    // drafts, at most
  uint32_t granted = 0;  // out
};

// Grants up to `room` drafts to a pass of `rows` rows without them, the likeliest first, as many as
// make the most tokens a second. With no measure of the pass: none.
void GrantDrafts(std::span<DraftOffer> offers, uint32_t rows, uint32_t room, const PassCost& cost);

}  // namespace thimble
