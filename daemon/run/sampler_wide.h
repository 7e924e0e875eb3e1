// Wide sampling: without a small top-k any token may be drawn, so the row of logits goes to the
// stage store and is read back in streaming passes, in the order of ids:
//  - the cut of top-k (by count) and of top-p (by mass) is found exactly, by radix selection on the
//    bits of the logits, one byte a pass: four passes each, and one for the sum;
//  - the draw takes two: the sum of the weights, then the token where their running sum passes the
//  draw.
// Every sum is in the order of ids, whatever the tiles were.
//
// A row is cut into pieces of 2040 logits: 8160 bytes and LMDB's page header are two pages. Piece i
// is part (slot << 16) + i of Value::kLogits. A row of a single piece never leaves the buffer.
// Called by: Sampler. Memory: one piece and a histogram, 10.2 KiB, fixed at construction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/run/sampling_options.h"
#include "daemon/run/selection.h"
#include "storage/base/status.h"
#include "storage/stage_store.h"

namespace thimble {

class WideSelection {
 public:
  static constexpr uint32_t kPieceLogits = 2040;

  // `store` may be null where vocab_size <= kPieceLogits.
  WideSelection(uint32_t vocab_size, uint32_t slot, StageStore* store);

  void Clear();

  // The logit of the next id; NaN: it must not be drawn. RESOURCE_EXHAUSTED from the store.
  Status Offer(float logit);

  // `uniform` is in [0, 1). nullopt where every logit was NaN. After the last logit, which
  // `options` must not ask to be greedy about (temperature 0).
  Result<std::optional<Candidate>> Draw(const SamplingOptions& options, double uniform);

 private:
  // What is kept of the ranking: keys above `key`, and of those equal to it the first `ties` by id.
  struct Cut {
    uint32_t key = 0;
    uint32_t ties = UINT32_MAX;
  };
  class Kept;

  [[nodiscard]] uint32_t PieceSize(uint32_t piece) const;
  Status WritePiece();
  Status LoadPiece(uint32_t piece);
  // visit(id, logit) for every logit that is a number, in the order of ids.
  template <typename Visit>
  Status ForEach(Visit visit);
  // The shortest beginning of the ranking inside `within` whose measures sum to `target` or more.
  // `measure` is a function of the logit, 0 or more.
  template <typename Measure>
  Status CutWhere(double target, Measure measure, Cut* within);

  const uint32_t vocab_size_;
  const uint32_t slot_;
  StageStore* const store_;

  std::vector<float> buffer_;  // [min(vocab_size, kPieceLogits)]
  std::array<double, 256> histogram_{};
  uint32_t piece_ = 0;  // the one in buffer_
  uint32_t next_id_ = 0;
  bool any_ = false;  // whether any logit is a number
  float max_ = 0;     // of those
};

}  // namespace thimble
