// The merging both kinds of BPE share: a piece of text is a list of symbols, and the best pair of
// neighbours is joined until no pair can be. The pairs wait in a heap, so that a piece of n symbols
// takes O(n log n), a megabyte of one letter too. Called by: the BPE and SentencePiece tokenizers.
// Memory: 20 bytes a symbol and at most 32 a symbol for the heap, held by the caller.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

inline constexpr uint32_t kNoSymbol = UINT32_MAX;

struct Symbol {
  uint32_t begin = 0;  // in the piece, bytes
  uint32_t bytes = 0;  // 0: joined to the symbol before
  uint32_t prev = kNoSymbol;
  uint32_t next = kNoSymbol;
  int32_t id = -1;  // of the token; negative values are the tokenizer's own
};

// What joining two neighbours would give.
struct JoinedSymbol {
  uint32_t priority = 0;  // the lowest is joined first; of equal ones the leftmost
  int32_t id = -1;
};

class SymbolMerger {
 public:
  void Clear() {
    symbols_.clear();
    heap_.clear();
  }
  // Adds the next symbol of the piece.
  void Add(uint32_t bytes, int32_t id) {
    const auto index = static_cast<uint32_t>(symbols_.size());
    Symbol symbol{.begin = 0, .bytes = bytes, .prev = kNoSymbol, .next = kNoSymbol, .id = id};
    if (index > 0) {
      symbols_.back().next = index;
      symbol.prev = index - 1;
      symbol.begin = symbols_.back().begin + symbols_.back().bytes;
    }
    symbols_.push_back(symbol);
  }

  // `lookup(left, right)` -> Result<std::optional<JoinedSymbol>>. Stops at its first error.
  template <typename Lookup>
  Status Merge(const Lookup& lookup) {
    for (uint32_t left = 0; left + 1 < symbols_.size(); ++left) {
      THIMBLE_RETURN_IF_ERROR(Consider(left, lookup));
    }
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), Later);
      const Candidate best = heap_.back();
      heap_.pop_back();
      Symbol& left = symbols_[best.left];
      if (left.bytes == 0 || left.next == kNoSymbol) continue;
      Symbol& right = symbols_[left.next];
      // A symbol only ever grows: the same length is the same pair.
      if (left.bytes + right.bytes != best.bytes) continue;
      left.bytes = best.bytes;
      left.id = best.id;
      left.next = right.next;
      if (right.next != kNoSymbol) symbols_[right.next].prev = best.left;
      right.bytes = 0;
      if (left.prev != kNoSymbol) THIMBLE_RETURN_IF_ERROR(Consider(left.prev, lookup));
      THIMBLE_RETURN_IF_ERROR(Consider(best.left, lookup));
    }
    return {};
  }

  // The symbols in order, those with bytes == 0 among them.
  [[nodiscard]] const std::vector<Symbol>& symbols() const { return symbols_; }

 private:
  struct Candidate {
    uint32_t priority;
    uint32_t left;
    uint32_t bytes;  // of both together
    int32_t id;      // of the joined token
  };

  static bool Later(const Candidate& a, const Candidate& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.left > b.left;
  }

  template <typename Lookup>
  Status Consider(uint32_t left, const Lookup& lookup) {
    const Symbol& symbol = symbols_[left];
    if (symbol.next == kNoSymbol) return {};
    const Symbol& right = symbols_[symbol.next];
    THIMBLE_ASSIGN_OR_RETURN(const std::optional<JoinedSymbol> joined, lookup(symbol, right));
    if (joined) {
      heap_.push_back({joined->priority, left, symbol.bytes + right.bytes, joined->id});
      std::push_heap(heap_.begin(), heap_.end(), Later);
    }
    return {};
  }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace thimble
