#include "daemon/run/tile_ring.h"

#include <cstring>
#include <string>

#include "storage/base/bytes.h"

namespace thimble {

TileRing::TileRing(const Plan& plan, Arena& arena, WeightReader& reader)
    : plan_(plan), arena_(arena), reader_(reader), loaded_(plan.tiles.size(), 0) {
  pass_end_ = static_cast<uint32_t>(plan.tiles.size());
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].buffer = arena.Use(i * plan.slot_bytes, plan.slot_bytes);
  }
}

const std::byte* TileRing::Resident(uint32_t tile) {
  if (!Loaded(tile)) return nullptr;
  return arena_.Use(plan_.tiles[tile].resident_offset, plan_.tiles[tile].bytes);
}

uint32_t TileRing::NextToRead(uint32_t tile) const {
  uint32_t next = tile;
  for (uint32_t i = 0; i < pass_end_; ++i) {
    next = next + 1 >= pass_end_ ? 0 : next + 1;
    if (next == tile) break;
    if (!Loaded(next)) return next;
  }
  return kNone;
}

TileRing::Slot* TileRing::Find(uint32_t tile) {
  for (Slot& slot : slots_) {
    if (slot.tile == tile) return &slot;
  }
  return nullptr;
}

Status TileRing::Named(const Status& error, uint32_t tile) const {
  return {error.code(), "read " + plan_.tiles[tile].tensor->name + ": " + error.message()};
}

Status TileRing::Start(Slot* slot, uint32_t tile) {
  if (slot->pending) {
    // What it was reading is not wanted any more; its error would be of no interest.
    slot->pending = false;
    static_cast<void>(reader_.Wait(slot->ticket));
  }
  slot->tile = kNone;
  const Tile& t = plan_.tiles[tile];
  THIMBLE_ASSIGN_OR_RETURN(slot->ticket, reader_.Start(t.offset, t.bytes, slot->buffer));
  slot->tile = tile;
  slot->pending = true;
  return {};
}

Status TileRing::Finish(Slot* slot) {
  if (!slot->pending) return {};
  slot->pending = false;
  Status status = reader_.Wait(slot->ticket);
  if (!status.ok()) slot->tile = kNone;
  return status;
}

void TileRing::Prefetch(uint32_t tile, const Slot* in_use) {
  uint32_t next = tile;
  for (size_t i = 0; i < slots_.size(); ++i) {
    next = NextToRead(next);
    if (next == kNone || next == tile) return;
    if (Find(next) != nullptr) continue;
    // A slot that neither is in use nor holds the tile that comes before `next`.
    Slot* free = nullptr;
    for (Slot& slot : slots_) {
      if (&slot == in_use) continue;
      if (slot.tile != kNone && slot.tile == NextToRead(tile)) continue;
      free = &slot;
    }
    if (free == nullptr) return;
    // A read that cannot be started is tried again, and reported, when the tile is acquired.
    if (!Start(free, next).ok()) return;
  }
}

Result<const std::byte*> TileRing::Acquire(uint32_t tile) {
  if (const std::byte* bytes = Resident(tile)) {
    Prefetch(tile, nullptr);
    return bytes;
  }
  Slot* slot = Find(tile);
  if (slot == nullptr) {
    slot = slots_[0].pending && !slots_[1].pending ? &slots_[1] : slots_.data();
    if (Status status = Start(slot, tile); !status.ok()) return Named(status, tile);
  }
  if (Status status = Finish(slot); !status.ok()) return Named(status, tile);
  const Tile& t = plan_.tiles[tile];
  const std::byte* bytes = slot->buffer + t.offset % kReadAlignment;
  if (t.resident()) {
    std::byte* home = arena_.Use(t.resident_offset, AlignUp(t.bytes, 64));
    std::memcpy(home, bytes, t.bytes);
    loaded_[tile] = 1;
    slot->tile = kNone;
    Prefetch(tile, nullptr);
    return home;
  }
  Prefetch(tile, slot);
  return bytes;
}

}  // namespace thimble
