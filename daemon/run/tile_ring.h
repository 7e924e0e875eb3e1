// The way of the weights: two slots of the arena through which streamed tiles pass, one in use and
// one being read, and the resident tiles, which pass through a slot once and stay. Called by: the
// runner. Memory: the arena's, and 1 byte a tile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "daemon/plan/plan.h"
#include "daemon/run/arena.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

class TileRing {
 public:
  // All must outlive the ring.
  TileRing(const Plan& plan, Arena& arena, WeightReader& reader);

  // A pass walks tiles [0, tile_end) in order; after the last one comes the next pass's first.
  void SetPassEnd(uint32_t tile_end) { pass_end_ = tile_end; }

  // The bytes of `tile`, valid until the next Acquire; starts reading what comes next.
  // Errors: the reader's, with the tensor's name.
  Result<const std::byte*> Acquire(uint32_t tile);

  // The bytes of a tile that is resident and has been read, or nullptr.
  [[nodiscard]] const std::byte* Resident(uint32_t tile);

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    std::byte* buffer = nullptr;
    uint32_t tile = kNone;
    uint32_t ticket = 0;
    bool pending = false;  // a read is under way
  };

  [[nodiscard]] bool Loaded(uint32_t tile) const { return loaded_[tile] != 0; }
  // The first tile behind `tile` in the order of passes that must be read, or kNone.
  [[nodiscard]] uint32_t NextToRead(uint32_t tile) const;
  Slot* Find(uint32_t tile);
  Status Start(Slot* slot, uint32_t tile);
  Status Finish(Slot* slot);
  void Prefetch(uint32_t tile, const Slot* in_use);
  [[nodiscard]] Status Named(const Status& error, uint32_t tile) const;

  const Plan& plan_;
  Arena& arena_;
  WeightReader& reader_;
  std::vector<uint8_t> loaded_;  // resident tiles that have been read
  uint32_t pass_end_ = 0;
  std::array<Slot, 2> slots_;
};

}  // namespace thimble
