// Blocks of keys and values that have no place in RAM, in the order in which attention asks for
// them: which ones come next through the ring (tile_ring.h), between the tiles before and behind
// each layer's attention, and where in LMDB's file they lie. Blocks of a layer that follow one
// another in the file, too, come with one read.
//
// A block that an open sequence uses is neither moved nor freed by LMDB where its layers have pages
// of their own, so that its bytes may be read from the file without a transaction, past the page
// cache; smaller ones come from the map. There each 4 KiB would be waited for, and a group that is
// full would have to throw a page out for it: measured with eight requests of SmolLM2-135M's shape
// at 24 MiB, 20 MB a pass at 0.13 GB/s. What is not read ahead is found there still. Called by: the
// runner, TileRing. Memory: 12 bytes a layer, 8 a request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "daemon/plan/plan.h"
#include "daemon/run/runner.h"
#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/kv_cache.h"
#include "storage/weight_reader.h"

namespace thimble {

// An item of the pass with its place among the rows.
struct ActiveItem {
  PassItem item;
  uint32_t first_row = 0;
  uint32_t first_logit_row = 0;
  bool dropped = false;
};

class KvReads {
 public:
  // Blocks [first.block, first.block + n) of one layer of a sequence, read at once.
  struct Run {
    KvPlace first;
    uint32_t n = 0;
    uint64_t offset = 0;  // of the first one in the file; the next ones lie Pitch() further on
  };
  // The most that neighbours are read together: past this, reads get no faster.
  static constexpr uint64_t kMostTogetherBytes = uint64_t{256} << 10;

  // Reads LMDB's file by `backend`, or where that is not possible there by the first that is, past
  // the page cache if any can. `plan` and `kv` must outlive it.
  static Result<std::unique_ptr<KvReads>> Open(const Plan& plan, KvCache& kv,
                                               ReaderBackend backend);
  // `reader` is of `file`, which is LMDB's.
  KvReads(const Plan& plan, KvCache& kv, std::unique_ptr<RandomAccessFile> file,
          std::unique_ptr<WeightReader> reader);

  [[nodiscard]] WeightReader& reader() { return *reader_; }
  [[nodiscard]] uint64_t Pitch() const { return pitch_; }
  [[nodiscard]] uint64_t BlockBytes() const { return layer_bytes_; }
  // Of the file what has to be read for a run.
  [[nodiscard]] uint64_t BytesOf(const Run& run) const {
    return (run.n - 1) * pitch_ + layer_bytes_;
  }

  // A pass of these items, whose blocks have their places in RAM by now; the items must stay until
  // the next one. Attention behind `last_stage` does not take place.
  void BeginPass(std::span<const ActiveItem> items, uint32_t last_stage);
  // Whether there is anything to read in it.
  [[nodiscard]] bool active() const { return active_; }
  // What was begun for this pass in the last one stays begun, and tiles before `tile` have been
  // asked for: what attention asks for before these comes from the map.
  void StartAt(uint32_t tile);
  // Nothing is begun, or it was lost.
  void StartOver();
  // Nothing more of this pass: the reader refuses.
  void Stop() { active_ = false; }

  // Places of this pass, round 0, are followed by those of the next one, round 1, taken to be of
  // the same items. Whether there is one to be read before `tile`.
  bool Before(uint32_t round, uint32_t tile);
  // The next read, after Before has said true: at most `most_bytes`, one block at least.
  Run Next(uint64_t most_bytes);
  [[nodiscard]] uint32_t round() const { return next_.round; }
  [[nodiscard]] uint32_t Tile() const { return attentions_[next_.attention].tile; }
  void Begun(const Run& run);
  // The first tile behind `tile` before which there may be reads; UINT32_MAX: none.
  [[nodiscard]] uint32_t NextCut(uint32_t tile) const;
  // In this pass `tile` is in use: what comes before it is not wanted any more.
  void Reach(uint32_t tile);

 private:
  struct Attention {
    uint32_t stage = 0;
    uint32_t tile = 0;  // the first one behind it
    uint32_t layer = 0;
  };
  struct Position {
    uint32_t round = 0;
    uint32_t attention = 0;
    uint32_t item = 0;
    uint32_t block = 0;
  };

  // The offset of a block that is neither in RAM nor dropped.
  std::optional<uint64_t> OffsetAt(const Position& at, uint32_t block);
  void NextAttention();

  KvCache& kv_;
  const uint64_t layer_bytes_;
  const uint64_t pitch_;
  const std::unique_ptr<RandomAccessFile> file_;
  const std::unique_ptr<WeightReader> reader_;
  std::vector<Attention> attentions_;  // one a layer
  uint32_t n_attentions_ = 0;          // of this pass
  std::span<const ActiveItem> items_;
  // Some blocks were not in RAM when the pass began. Where all were, those that give way meanwhile
  // come from the map until it ends.
  bool active_ = false;
  Position next_;
  bool found_ = false;  // Before has found it, at offset_
  uint64_t offset_ = 0;
  uint32_t n_together_ = 0;          // Next has found so many; 0: it has not looked
  bool begun_ahead_ = false;         // something of round 1 is
  std::vector<uint64_t> sequences_;  // of items_
};

}  // namespace thimble
