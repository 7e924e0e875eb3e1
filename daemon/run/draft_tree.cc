#include "daemon/run/draft_tree.h"

namespace thimble {

uint32_t DraftTree::Child(uint32_t row, int32_t token, uint32_t n) const {
  for (uint32_t i = 0; i < n; ++i) {
    if (parents[i] == row && tokens[i] == token) return i + 1;
  }
  return 0;
}

uint32_t DraftTree::ChainSize() const {
  uint32_t n = 0;
  while (n < size && parents[n] == n) ++n;
  return n;
}

void DraftTree::PathTo(uint32_t row, std::array<int32_t, kMost>* path) const {
  for (; row != 0; row = Parent(row)) (*path)[Depth(row) - 1] = tokens[row - 1];
}

DraftTree DraftTree::DepthFirst() const {
  DraftTree sorted;
  std::array<uint8_t, kMost + 1> now{};   // the new row of each row
  std::array<bool, kMost + 1> visited{};  // row 0 is where it was
  for (uint32_t row = 0; sorted.size < size;) {
    uint32_t child = 1;
    while (child <= size && (visited[child] || Parent(child) != row)) ++child;
    if (child > size) {
      row = Parent(row);
      continue;
    }
    visited[child] = true;
    now[child] = static_cast<uint8_t>(sorted.Add(tokens[child - 1], now[row]));
    row = child;
  }
  return sorted;
}

}  // namespace thimble
