// What the parts of KvCache share about the tail of a sequence: the rows of its last, incomplete
// block, and which tokens a block stands for. Called by: kv_cache.cc, kv_commit.cc, kv_reader.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "storage/encoding.h"
#include "storage/kv_cache.h"

namespace thimble {

// Database "kv_tails": [sequence u64 BE][layer u16 BE][position u32 BE] -> RowHalves() halves,
// [n_kv_heads][2][head_dim]. By layer first: attention reads one layer's rows in a run.
// Emptied at every start; never change it within a format version.
inline constexpr const char* kKvTailDatabase = "kv_tails";
inline constexpr size_t kKvTailKeyBytes = 14;

inline Key KvTailKey(uint64_t sequence, uint32_t layer, uint32_t position) {
  return Key().U64(sequence).U16(static_cast<uint16_t>(layer)).U32(position);
}

inline Status KvRowMissing(uint64_t sequence, uint32_t layer, uint64_t position) {
  return DataLossError("read KV row of sequence " + std::to_string(sequence) + ", layer " +
                       std::to_string(layer) + ", token " + std::to_string(position) +
                       ": it is missing or cut short");
}

// A transaction that may be cut is cut after about this much: its dirty pages are on the heap.
inline constexpr uint64_t kKvTransactionBytes = uint64_t{1024} * 1024;

// The tokens of `block` of a sequence with `pending` behind it; they must be that many.
inline std::array<int32_t, kKvBlockTokens> KvBlockTokenIds(const KvSequence& sequence,
                                                           std::span<const int32_t> pending,
                                                           uint32_t block) {
  std::array<int32_t, kKvBlockTokens> ids{};
  const size_t begin = size_t{block} * kKvBlockTokens;
  for (size_t i = 0; i < kKvBlockTokens; ++i) {
    const size_t position = begin + i;
    ids[i] = position < sequence.n_tokens ? sequence.tokens[position]
                                          : pending[position - sequence.n_tokens];
  }
  return ids;
}

}  // namespace thimble
