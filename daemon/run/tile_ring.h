// The way of what is read from flash: a ring of the arena through which streamed tiles pass and,
// between them, the keys and values that have no place in RAM (kv_reads.h), in the order in which a
// pass uses them. Reads are kept under way ahead of use, into all of the ring but a span or two, so
// that the flash never waits for the processor; the resident tiles pass through it once and stay.
// Tiles that follow one another both in the pass, small ones that stay aside, and in the file are
// read at once. Called by: the runner, attention. Memory: the arena's, 1 byte a tile, and 12 KiB of
// spans; the ring itself is given back once all tiles stay.
//
//   [ ... free ... | oldest span: in use | span | newest span: being read | ... free ... ]
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "daemon/plan/plan.h"
#include "daemon/run/arena.h"
#include "daemon/run/cache_eviction.h"
#include "daemon/run/kv_reads.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

class TileRing final : public KvSource {
 public:
  // All must outlive the ring. `kv`: nullptr where no keys and values pass through it.
  TileRing(const Plan& plan, Arena& arena, WeightReader& reader, KvReads* kv = nullptr);

  // A pass walks tiles [0, tile_end) in order; after the last one comes the next pass's first. Its
  // values end at `values_end`, and keys and values begin at `kv_begin`: resident tiles that lie
  // beyond these are streamed, and read into their place again by a pass that leaves it to them.
  // Its keys and values are those of KvReads::BeginPass.
  void BeginPass(uint32_t tile_end, uint64_t values_end, uint64_t kv_begin);
  // In the middle of a pass, while no tile is in use: as BeginPass with another `kv_begin`.
  void Limit(uint64_t kv_begin);
  [[nodiscard]] uint64_t values_end() const { return values_end_; }

  // The bytes of `tile`, valid until the next Acquire; starts reading what comes next.
  // Errors: the reader's, with the tensor's name.
  Result<const std::byte*> Acquire(uint32_t tile);

  // The bytes of a block of keys and values, valid until the next Acquire or Take of another one;
  // nullptr for one that does not come through the ring. In the order of the pass, and what is
  // passed over is forgotten; not while a tile is in use.
  Result<const std::byte*> Take(const KvPlace& place) override;

  // Where the bytes of the first tile from `tile` on that is not small are, or nullptr where they
  // have not arrived, or that one is not near.
  [[nodiscard]] const std::byte* Peek(uint32_t tile);

  // The bytes of a tile that is resident and has been read, or nullptr.
  [[nodiscard]] const std::byte* Resident(uint32_t tile);

  // How what has been used leaves the caches now.
  [[nodiscard]] Eviction eviction() const { return eviction_.way(); }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr int kPeekTiles = 4;
  static constexpr size_t kMostSpans = 127;
  // Tiles [tile_begin, tile_end), read by one operation, but for small ones that are in RAM; or
  // blocks of keys and values, used before tile_begin, which is tile_end then.
  struct Span {
    uint32_t tile_begin = 0;
    uint32_t tile_end = 0;
    uint32_t ticket = 0;
    bool pending = false;      // not waited for yet
    bool used_up = false;      // its last tile was acquired, or its last block taken
    uint64_t file_offset = 0;  // of the first tile
    uint64_t base = 0;   // in the ring, a multiple of kReadAlignment: of the first tile's page
    uint64_t begin = 0;  // of what is still needed
    uint64_t end = 0;
    KvReads::Run kv;    // n > 0: keys and values
    uint32_t pass = 0;  // kv's
    Status status;      // once waited for
    [[nodiscard]] bool is_kv() const { return kv.n > 0; }
  };

  // Whether the tile's place is its own in this pass.
  [[nodiscard]] bool AtHome(const Tile& tile) const {
    return tile.resident() && tile.resident_offset >= values_end_ &&
           (IsSmall(tile) || tile.resident_offset + tile.bytes <= kv_begin_);
  }
  // Whether keys and values never lie over its place.
  [[nodiscard]] bool IsSmall(const Tile& tile) const {
    return tile.resident() && tile.resident_offset >= plan_.small_offset;
  }
  [[nodiscard]] bool Loaded(uint32_t tile) const { return loaded_[tile] != 0; }
  [[nodiscard]] Span& At(size_t i) { return spans_[(oldest_ + i) % spans_.size()]; }
  [[nodiscard]] const Span& At(size_t i) const { return spans_[(oldest_ + i) % spans_.size()]; }
  // The first tile from `tile` on, in the order of passes, that must be read; kNone if there is
  // none.
  [[nodiscard]] uint32_t NextToRead(uint32_t tile) const;
  // The tiles from `tile` on that one read brings, before the next keys and values.
  [[nodiscard]] Span SpanFrom(uint32_t tile) const;
  [[nodiscard]] WeightReader& ReaderOf(const Span& span) const {
    return span.is_kv() ? kv_->reader() : reader_;
  }
  // Whether its keys and values are behind what the pass has reached.
  [[nodiscard]] bool IsPast(const Span& span, uint32_t tile) const {
    return span.is_kv() && (span.pass != pass_ ? static_cast<int32_t>(span.pass - pass_) < 0
                                               : span.tile_begin <= tile);
  }
  [[nodiscard]] uint64_t FreeBytes() const;
  // The span that has the block, as an index; n_spans_ where there is none.
  [[nodiscard]] size_t Find(const KvPlace& place) const;
  // Room for `bytes` behind the newest span; false where there is none.
  bool Place(uint64_t bytes, uint64_t* begin) const;
  Status Start(Span span);
  Status Finish(Span* span);
  // Of a tile of the span.
  [[nodiscard]] const std::byte* BytesOf(const Span& span, uint32_t tile) const;
  void DropOldest();
  // Nothing is read ahead of a pass: the last one ended early, or the places of tiles have changed
  // and what was read ahead may lack a small one.
  void StartOver();
  // Keys and values that have arrived give back the reader's operations; whether it takes another.
  bool KvReaderTakesMore();
  // Starts reads while the ring has room.
  void Prefetch();
  void StartWhileThereIsRoom();
  [[nodiscard]] bool MayStartTile(uint32_t tile) const;
  bool StartTiles(uint32_t tile, bool* polled);
  bool StartKv(bool* polled);
  bool MakeRoom(uint64_t bytes, uint64_t* base, bool* polled);
  // Before what was used last may be read over.
  void EvictUsed();
  void ReleaseIfDone();
  // Whether `bytes` more may be under way: two reads may, of more all of the ring but a span, or
  // two where it has five, so that there is room for the next ones when these arrive, and the flash
  // goes on at once. A virtual disk that serves its queue in one go tells of no read before all
  // that were asked for meanwhile are done: with the whole ring under way the flash would stand
  // still for as long as the first tiles are in use.
  [[nodiscard]] bool MayStart(uint64_t bytes) const;
  [[nodiscard]] Status Named(const Status& error, uint32_t tile) const;

  const Plan& plan_;
  Arena& arena_;
  WeightReader& reader_;
  KvReads* const kv_;
  std::vector<uint8_t> loaded_;  // resident tiles that have been read
  std::byte* const ring_;
  uint32_t pass_end_ = 0;
  uint64_t values_end_ = 0;
  uint64_t kv_begin_ = UINT64_MAX;
  uint32_t pass_ = 0;
  uint32_t next_ = 0;   // where to look for the next tile to read
  uint32_t round_ = 0;  // of next_: 1 once it is the next pass's
  std::array<Span, kMostSpans> spans_;
  size_t oldest_ = 0;
  size_t n_spans_ = 0;
  size_t n_tile_spans_ = 0;  // the embedding's rows are read beside: their operations are left
  size_t n_to_load_ = 0;     // tiles of the model that are not in RAM for good
  EvictionTrials eviction_;
  const std::byte* used_ = nullptr;  // what of the ring was given out last, and its bytes
  uint64_t used_bytes_ = 0;
};

}  // namespace thimble
