#include "storage/cache_need.h"

#include <algorithm>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

// Of the vocabulary index, a token: 88 for SmolLM2-135M's, merges included.
constexpr uint64_t kVocabularyBytesPerToken = 96;
// LMDB copies the pages it changes before it frees them, and frees a transaction later: small
// values take their place twice, and a page that is split is half empty.
constexpr uint64_t kCopies = 4;

}  // namespace

uint64_t CacheBytesNeeded(const CacheNeed& need) {
  const uint64_t blocks = uint64_t{need.sequences} * (need.context_tokens / kKvBlockTokens);
  const uint64_t kv = blocks * KvBlockFileBytes(need.shape);
  const uint64_t tails = uint64_t{need.sequences} * kKvBlockTokens * need.shape.n_layers *
                         need.shape.RowHalves() * sizeof(uint16_t);
  const uint64_t rest =
      kVocabularyBytesPerToken * need.vocab_size + kCopies * (tails + need.stage_output_bytes);
  // A quarter of the file is not the blocks'; where that is too little for the rest, more.
  return AlignUp(std::max(kv / 3 * 4 + 4, kv + rest), kMiB);
}

}  // namespace thimble
