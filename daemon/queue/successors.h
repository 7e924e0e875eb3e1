// What the model lately thought may follow each token, in any request's text: where a text is new,
// drafts come from here (token recycling, arXiv:2408.08696). Rows whose drafts were refused teach,
// too.
// Called by: the scheduler, speculation. Memory: 28 bytes an entry, 56 KiB at most, taken at
// construction.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "daemon/run/likeliest.h"

namespace thimble {

class Successors {
 public:
  // More than the tokens of some long texts (45 texts of 256 tokens have 1900 different ones).
  static constexpr size_t kMostEntries = 2048;

  // 0: learns nothing.
  explicit Successors(uint32_t vocab_size)
      : entries_(std::min<size_t>(vocab_size, kMostEntries)) {}

  // `likeliest`: after `token`, the likeliest first; in place of what was known of it, and of
  // another token that has the same entry.
  void Learn(int32_t token, std::span<const int32_t> likeliest);
  // Nothing, where `token` is not known.
  [[nodiscard]] std::span<const int32_t> After(int32_t token) const;

 private:
  struct Entry {
    int32_t token = -1;
    std::array<int32_t, LikeliestTokens::kMost> next{};  // the rest: -1
  };
  [[nodiscard]] size_t Index(int32_t token) const {
    return static_cast<size_t>(token) % entries_.size();
  }

  std::vector<Entry> entries_;  // by token, modulo their number
};

}  // namespace thimble
