// Guesses at what a text goes on with, as a tree: some tokens that may follow its last one, some
// that may follow each of these. One pass verifies all of them, each as a row that sees the text
// and its own ancestors alone (tree attention: SpecInfer, arXiv:2305.09781).
//
//   row 0: the text's last token -+- row 1 --- row 2     rows 1 and 2 follow one another,
//                                 +- row 3               row 3 is another guess in place of row 1
//
// Called by: the scheduler, which grows it, the sampler, the runner and attention. Memory: 100
// bytes.
#pragma once

#include <array>
#include <cstdint>

namespace thimble {

struct DraftTree {
  static constexpr uint32_t kMost = 16;

  uint32_t size = 0;                     // drafts; draft i is row i + 1
  std::array<int32_t, kMost> tokens{};   // [size]
  std::array<uint8_t, kMost> parents{};  // [size]: the row it follows, which comes before its own
  std::array<uint8_t, kMost> depths{};   // [size]: of its row; 1 follows the last token

  // There is room. Returns its row.
  uint32_t Add(int32_t token, uint32_t parent) {
    tokens[size] = token;
    parents[size] = static_cast<uint8_t>(parent);
    depths[size] = static_cast<uint8_t>(Depth(parent) + 1);
    return ++size;
  }
  // Tokens between the last one and the row's, which is counted: how far its position lies behind.
  [[nodiscard]] uint32_t Depth(uint32_t row) const { return row == 0 ? 0 : depths[row - 1]; }
  // Of a row that is not 0.
  [[nodiscard]] uint32_t Parent(uint32_t row) const { return parents[row - 1]; }
  // Of the first `n` drafts, the row that follows `row` with `token`; 0 where there is none.
  [[nodiscard]] uint32_t Child(uint32_t row, int32_t token, uint32_t n) const;
  // How many of the first drafts follow one another.
  [[nodiscard]] uint32_t ChainSize() const;
  // The drafts that lead to `row`, its own last: Depth(row) of them.
  void PathTo(uint32_t row, std::array<int32_t, kMost>* path) const;
  // The same tree, each row followed by those behind it, in the order in which they were added: so
  // that the branch that was begun first is the chain at the beginning.
  [[nodiscard]] DraftTree DepthFirst() const;
};

}  // namespace thimble
