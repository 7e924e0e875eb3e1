#include "daemon/run/tile_ring.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

// Measured at 3.7 GB/s: of five or six spans it is a tenth faster to keep two free than one, of
// four it makes no difference.
constexpr uint64_t kSpansToKeepTwo = 5;

}  // namespace

TileRing::TileRing(const Plan& plan, Arena& arena, WeightReader& reader)
    : plan_(plan),
      arena_(arena),
      reader_(reader),
      loaded_(plan.tiles.size(), 0),
      ring_(arena.Use(0, plan.ring_bytes)),
      pass_end_(static_cast<uint32_t>(plan.tiles.size())),
      n_to_load_(plan.tiles.size()),
      // Through the page cache it is this core that writes the ring.
      demotion_(reader.backend() != ReaderBackend::kBufferedPread &&
                DemotionHelps(plan.ring_bytes)) {}

void TileRing::BeginPass(uint32_t tile_end, uint64_t values_end, uint64_t kv_begin) {
  pass_end_ = tile_end;
  values_end_ = values_end;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  demotion_.BeginPass(static_cast<uint64_t>(std::chrono::nanoseconds(now).count()),
                      reader_.stats().stall_ns);
  Limit(kv_begin);
}

void TileRing::Limit(uint64_t kv_begin) {
  kv_begin_ = kv_begin;
  for (size_t t = 0; t < loaded_.size(); ++t) {
    if (loaded_[t] == 0 || AtHome(plan_.tiles[t])) continue;
    loaded_[t] = 0;
    ++n_to_load_;
    if (IsSmall(plan_.tiles[t])) DropAll();
  }
}

const std::byte* TileRing::Resident(uint32_t tile) {
  if (!Loaded(tile)) return nullptr;
  return arena_.Use(plan_.tiles[tile].resident_offset, plan_.tiles[tile].bytes);
}

const std::byte* TileRing::Peek(uint32_t tile) {
  for (int i = 0; i < kPeekTiles && tile < pass_end_; ++i, ++tile) {
    if (plan_.tiles[tile].bytes <= kSmallTile) continue;
    if (const std::byte* bytes = Resident(tile)) return bytes;
    // The oldest span is in use; what is wanted next is in it or begins the one after it.
    for (size_t s = 0; s < std::min<size_t>(n_spans_, 2); ++s) {
      const Span& span = At(s);
      if (tile < span.tile_begin || tile >= span.tile_end) continue;
      if (span.pending && !reader_.Arrived(span.ticket)) return nullptr;
      return BytesOf(span, tile);
    }
    return nullptr;
  }
  return nullptr;
}

const std::byte* TileRing::BytesOf(const Span& span, uint32_t tile) const {
  return ring_ + span.base + span.file_offset % kReadAlignment +
         (plan_.tiles[tile].offset - span.file_offset);
}

uint32_t TileRing::NextToRead(uint32_t tile) const {
  if (n_to_load_ == 0) return kNone;
  for (uint32_t i = 0; i < pass_end_; ++i, ++tile) {
    if (tile >= pass_end_) tile = 0;
    if (!Loaded(tile)) return tile;
  }
  return kNone;
}

TileRing::Span TileRing::SpanFrom(uint32_t tile) const {
  Span span;
  span.tile_begin = tile;
  span.tile_end = tile + 1;
  span.file_offset = plan_.tiles[tile].offset;
  uint64_t end = span.file_offset + plan_.tiles[tile].bytes;
  for (uint32_t t = span.tile_end; t < pass_end_; ++t) {
    const Tile& next = plan_.tiles[t];
    if (Loaded(t)) {
      if (IsSmall(next)) continue;
      break;
    }
    // Tensors lie one behind the other, padded to 32 bytes.
    if (next.offset < end || next.offset - end >= kReadAlignment) break;
    const uint64_t next_end = next.offset + next.bytes;
    if (ReadBufferBytes(span.file_offset, next_end - span.file_offset) > plan_.span_bytes) break;
    end = next_end;
    span.tile_end = t + 1;
  }
  span.end = ReadBufferBytes(span.file_offset, end - span.file_offset);
  return span;
}

bool TileRing::Place(uint64_t bytes, uint64_t* begin) const {
  if (n_spans_ == 0) {
    *begin = 0;
    return bytes <= plan_.ring_bytes;
  }
  const Span& oldest = spans_[oldest_];
  const Span& newest = spans_[(oldest_ + n_spans_ - 1) % spans_.size()];
  *begin = newest.end;
  if (newest.begin < oldest.begin) return bytes <= oldest.begin - newest.end;
  if (bytes <= plan_.ring_bytes - newest.end) return true;
  *begin = 0;
  return bytes <= oldest.begin;
}

Status TileRing::Named(const Status& error, uint32_t tile) const {
  return {error.code(), "read " + plan_.tiles[tile].tensor->name + ": " + error.message()};
}

Status TileRing::Start(Span span) {
  const Tile& last = plan_.tiles[span.tile_end - 1];
  const uint64_t bytes = last.offset + last.bytes - span.file_offset;
  THIMBLE_ASSIGN_OR_RETURN(span.ticket, reader_.Start(span.file_offset, bytes, ring_ + span.base));
  span.pending = true;
  next_ = span.tile_end;
  At(n_spans_++) = span;
  return {};
}

Status TileRing::Finish(Span* span) {
  if (!span->pending) return {};
  span->pending = false;
  return reader_.Wait(span->ticket);
}

void TileRing::DropOldest() {
  // What it was reading is not wanted any more; its error would be of no interest.
  if (n_spans_ > 0) static_cast<void>(Finish(&At(0)));
  oldest_ = (oldest_ + 1) % spans_.size();
  --n_spans_;
}

void TileRing::DropAll() {
  if (n_spans_ == 0) return;
  next_ = At(0).tile_begin;
  while (n_spans_ > 0) DropOldest();
}

void TileRing::Prefetch() {
  reader_.BeginBatch();
  StartWhileThereIsRoom();
  reader_.EndBatch();
}

void TileRing::StartWhileThereIsRoom() {
  bool polled = false;
  while (n_spans_ < spans_.size()) {
    const uint32_t tile = NextToRead(next_);
    // The whole of what is read in a pass may be in the ring; of the oldest span, tiles that stay
    // may have left it.
    if (tile == kNone) return;
    if (n_spans_ > 0 && tile >= At(0).tile_begin && tile < At(0).tile_end) return;
    Span span = SpanFrom(tile);
    const uint64_t bytes = span.end;
    if (!Place(bytes, &span.base)) return;
    if (!MayStart(bytes)) {
      if (std::exchange(polled, true)) return;
      reader_.Poll();
      continue;
    }
    span.begin = span.base;
    span.end = span.base + bytes;
    // A read that cannot be started is tried again, and reported, when the tile is acquired.
    if (!Start(span).ok()) return;
  }
}

bool TileRing::MayStart(uint64_t bytes) const {
  uint64_t under_way = 0;
  size_t n_under_way = 0;
  for (size_t i = 0; i < n_spans_; ++i) {
    const Span& span = At(i);
    if (!span.pending || reader_.Arrived(span.ticket)) continue;
    under_way += span.end - span.base;
    ++n_under_way;
  }
  const bool two = plan_.ring_bytes >= kSpansToKeepTwo * plan_.span_bytes;
  const uint64_t kept = (two ? 2 : 1) * plan_.span_bytes;
  return n_under_way < 2 || under_way + bytes + kept <= plan_.ring_bytes;
}

Result<const std::byte*> TileRing::Acquire(uint32_t tile) {
  // Before it may be read over.
  const std::byte* used = std::exchange(used_, nullptr);
  if (used != nullptr && demotion_.active()) Demote(used, used_bytes_);
  if (n_spans_ > 0 && At(0).used_up) DropOldest();
  if (const std::byte* bytes = Resident(tile)) {
    Prefetch();
    return bytes;
  }
  // The oldest span has it, unless a pass ended early or became another one.
  while (n_spans_ > 0 && (tile < At(0).tile_begin || tile >= At(0).tile_end)) DropOldest();
  if (n_spans_ == 0) {
    Span span = SpanFrom(tile);
    if (Status status = Start(span); !status.ok()) return Named(status, tile);
  }
  // Before waiting: with what was used up gone there may be room, and the flash is not left idle
  // between the completion of this read and the start of the next one.
  if (At(0).pending) Prefetch();
  Span& span = At(0);
  if (Status status = Finish(&span); !status.ok()) {
    DropOldest();
    return Named(status, tile);
  }
  const Tile& t = plan_.tiles[tile];
  const std::byte* bytes = BytesOf(span, tile);
  // The tiles before it are done with.
  span.begin = AlignDown(static_cast<uint64_t>(bytes - ring_), kReadAlignment);
  span.used_up = tile + 1 == span.tile_end;
  if (AtHome(t)) {
    std::byte* home = arena_.Use(t.resident_offset, AlignUp(t.bytes, 64));
    std::memcpy(home, bytes, t.bytes);
    loaded_[tile] = 1;
    --n_to_load_;
    bytes = home;
    if (span.used_up) DropOldest();
    if (n_to_load_ == 0 && n_spans_ == 0 && !plan_.Streams()) arena_.Release(0, plan_.ring_bytes);
  } else {
    used_ = bytes;
    used_bytes_ = t.bytes;
  }
  Prefetch();
  return bytes;
}

}  // namespace thimble
