// The runner: walks the plan's stages for one pass, exactly one stage at a time, tile by tile.
//
//   Begin(items) -> Step() ... Step() -> done   (or Abort())
//
// A pass computes rows; a row is one token position of one sequence. Step does a bounded piece of
// work (a tile of weights for some of the rows, or some blocks of attention) and returns to the
// event loop, holding no LMDB transaction. At the end of a group its outputs go to the stage store
// and its RAM is used again by the next group. Called by: the scheduler, `thimble logits`. Memory:
// the arena, as the plan placed it, and about 1 KiB a row of bookkeeping reserved at Open; a pass
// allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "daemon/run/draft_tree.h"
#include "daemon/run/logits_sink.h"
#include "storage/base/histogram.h"
#include "storage/base/status.h"
#include "storage/kv_cache.h"
#include "storage/stage_store.h"
#include "storage/weight_reader.h"

namespace thimble {

// Consecutive tokens of one sequence, behind sequence->n_tokens, or one and a tree of drafts at
// what follows it. The last `n_logits` of them get logits, delivered to `sink` (which may be null
// where n_logits is 0).
struct PassItem {
  KvSequence* sequence = nullptr;
  std::span<const int32_t> tokens;  // of the rows
  uint32_t n_logits = 0;
  LogitsSink* sink = nullptr;
  // Where not null: tokens are the one before the drafts and these, all with logits. The rows' keys
  // and values have to be in RAM: where they can't be, the drafts behind the chain that the tree
  // begins with are left out, and the sink is told of the fewer rows by TokensToKeep.
  const DraftTree* drafts = nullptr;

  // Leaves out the drafts behind the chain that the tree begins with.
  void CutToChain() {
    n_logits = 1 + drafts->ChainSize();
    tokens = tokens.first(n_logits);
    drafts = nullptr;
  }
  // Of row `i` of `tokens` in the sequence.
  [[nodiscard]] uint32_t Position(uint32_t i) const {
    return sequence->n_tokens + (drafts == nullptr ? i : drafts->Depth(i));
  }
};

struct RunnerStats {
  uint64_t passes = 0;
  uint64_t rows = 0;
  // By StageKind, waiting for flash aside. Drawing tokens (kSample) is the scheduler's.
  std::array<StageHistogram, kStageKinds> stage_seconds{};
  uint64_t arena_peak_bytes = 0;  // measured: the plan's peak_bytes when all stages have run
};

// Of the arena, what is in RAM: pages that were never touched take none.
struct ArenaUse {
  uint64_t work_bytes = 0;      // the ring and the groups' buffers
  uint64_t resident_bytes = 0;  // weights that stay
};

class Runner {
 public:
  // Maps the arena (plan.peak_bytes). Everything passed must outlive the runner.
  static Result<std::unique_ptr<Runner>> Open(const Model& model, const Plan& plan,
                                              RandomAccessFile& file, ReaderBackend backend,
                                              KvCache& kv, StageStore& store);
  virtual ~Runner() = default;

  // Starts a pass. The items' sum of tokens is at most plan.max_rows, of n_logits at most
  // plan.max_logit_rows; every token < vocab_size; every sequence appears once and fits its
  // context.
  virtual Status Begin(std::span<const PassItem> items) = 0;

  // True when the pass is complete: the KV of every row that its sink keeps is in the cache and
  // committed to its sequence.
  // An error ends the pass for all items; sequences are as before Begin.
  virtual Result<bool> Step() = 0;

  // Lets go of item `index` in the middle of a pass: nothing more is computed or delivered for it
  // where that can be avoided, and its sequence may be closed at once. When all are gone the pass
  // is over.
  virtual void Drop(size_t index) = 0;

  // Ends the pass at once. Sequences are as before Begin.
  virtual void Abort() = 0;

  // Gives RAM of the arena back that holds nothing: a prompt's values, and places of keys and
  // values. Not in the middle of a pass.
  virtual void Rest() {}

  // Gives `bytes` of the resident set up, with what the last call asked for, as far as it has them:
  // these weights are streamed. Fewer than the last time: they come back as passes go on. False in
  // the middle of a tile, where nothing can be changed: it is to be called again.
  virtual bool Yield(uint64_t bytes) { return bytes == 0; }
  // Of the plan's spare, what resident weights and keys and values may have while nothing is
  // yielded: to be yielded for the arena to keep within the budget.
  [[nodiscard]] virtual uint64_t SpareInUse() const { return 0; }
  // Bytes that the arena may take within a pass beyond what it has in RAM, if `yielded` is given
  // up: weights, values, and slots of keys and values in use that are not there yet. May be too
  // much, but not where that is above `enough`: then the kernel is asked, which takes 20 us for
  // 24 MiB.
  [[nodiscard]] virtual uint64_t Growth(uint64_t yielded, uint64_t enough) {
    static_cast<void>(yielded);
    static_cast<void>(enough);
    return 0;
  }

  [[nodiscard]] virtual bool running() const = 0;
  // Index in plan.stages of the stage that runs or runs next.
  [[nodiscard]] virtual size_t stage() const = 0;
  [[nodiscard]] virtual const RunnerStats& stats() const = 0;
  // Of the weights.
  [[nodiscard]] virtual const WeightReader& reader() const = 0;
  // Of weights, keys and values.
  [[nodiscard]] virtual ReadStats read_stats() const = 0;
  // Asks the kernel: about 0.1 ms for 64 MiB.
  [[nodiscard]] virtual ArenaUse arena_use() const { return {}; }
};

}  // namespace thimble
