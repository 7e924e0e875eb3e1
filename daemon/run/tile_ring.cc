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

TileRing::TileRing(const Plan& plan, Arena& arena, WeightReader& reader, KvReads* kv)
    : plan_(plan),
      arena_(arena),
      reader_(reader),
      kv_(kv),
      loaded_(plan.tiles.size(), 0),
      ring_(arena.Use(0, plan.ring_bytes)),
      pass_end_(static_cast<uint32_t>(plan.tiles.size())),
      n_to_load_(plan.tiles.size()),
      // Through the page cache it is this core that writes the ring.
      eviction_(reader.backend() == ReaderBackend::kBufferedPread
                    ? std::vector<Eviction>{Eviction::kNone}
                    : EvictionsHere(),
                plan.ring_bytes) {}

void TileRing::BeginPass(uint32_t tile_end, uint64_t values_end, uint64_t kv_begin) {
  pass_end_ = tile_end;
  values_end_ = values_end;
  ++pass_;
  if (std::exchange(round_, 0) == 0) {
    StartOver();
  } else if (kv_ != nullptr) {
    kv_->StartAt(next_);
  }
  Limit(kv_begin);
}

void TileRing::Limit(uint64_t kv_begin) {
  kv_begin_ = kv_begin;
  bool small = false;
  for (size_t t = 0; t < loaded_.size(); ++t) {
    if (loaded_[t] == 0 || AtHome(plan_.tiles[t])) continue;
    loaded_[t] = 0;
    ++n_to_load_;
    small = small || IsSmall(plan_.tiles[t]);
  }
  if (small) StartOver();
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
  const uint32_t cut = kv_ == nullptr ? kNone : kv_->NextCut(tile);
  for (uint32_t t = span.tile_end; t < std::min(pass_end_, cut); ++t) {
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
  ++n_tile_spans_;
  return {};
}

Status TileRing::Finish(Span* span) {
  if (!span->pending) return span->status;
  span->pending = false;
  span->status = ReaderOf(*span).Wait(span->ticket);
  return span->status;
}

void TileRing::DropOldest() {
  // What it was reading is not wanted any more; its error would be of no interest.
  Span& span = At(0);
  static_cast<void>(Finish(&span));
  const bool is_kv = span.is_kv();
  span = {};
  oldest_ = (oldest_ + 1) % spans_.size();
  --n_spans_;
  if (is_kv) {
    ReleaseIfDone();
  } else {
    --n_tile_spans_;
  }
}

void TileRing::StartOver() {
  while (n_spans_ > 0) DropOldest();
  next_ = 0;
  round_ = 0;
  if (kv_ != nullptr) kv_->StartOver();
}

void TileRing::ReleaseIfDone() {
  if (n_to_load_ == 0 && n_spans_ == 0 && !plan_.Streams()) arena_.Release(0, plan_.ring_bytes);
}

void TileRing::EvictUsed() {
  const std::byte* used = std::exchange(used_, nullptr);
  if (used == nullptr) return;
  Evict(eviction_.way(), used, used_bytes_);
  if (!eviction_.Used(used_bytes_)) return;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  eviction_.EndWindow(
      static_cast<uint64_t>(std::chrono::nanoseconds(now).count()),
      reader_.stats().stall_ns + (kv_ == nullptr ? 0 : kv_->reader().stats().stall_ns));
}

void TileRing::Prefetch() {
  reader_.BeginBatch();
  if (kv_ != nullptr) kv_->reader().BeginBatch();
  StartWhileThereIsRoom();
  reader_.EndBatch();
  if (kv_ != nullptr) kv_->reader().EndBatch();
}

// In the order of use: tiles, and before those that follow a layer's attention its keys and values.
void TileRing::StartWhileThereIsRoom() {
  bool polled = false;
  bool more = true;
  while (more && n_spans_ < spans_.size()) {
    const uint32_t tile = NextToRead(next_);
    const uint32_t round = round_ + (tile < next_ ? 1 : 0);
    // Without a ceiling the ring is given back behind a pass that had keys and values to read.
    const bool kv_active = kv_ != nullptr && kv_->active();
    const uint32_t last_round = plan_.Streams() || !kv_active ? 1 : 0;
    const bool tiles_left = tile != kNone && round <= last_round;
    const bool kv_first =
        kv_active && kv_->Before(tiles_left ? round : round_, tiles_left ? tile : pass_end_);
    const bool may = tiles_left && MayStartTile(tile);
    more = kv_first ? StartKv(&polled) : may && StartTiles(tile, &polled);
  }
}

// The whole of what is read in a pass may be in the ring; of the oldest tiles' span, tiles that
// stay may have left it.
bool TileRing::MayStartTile(uint32_t tile) const {
  size_t i = 0;
  while (i < n_spans_ && At(i).is_kv()) ++i;
  return i == n_spans_ || tile < At(i).tile_begin || tile >= At(i).tile_end;
}

// Room for `bytes` that may be read now; false where there is none.
bool TileRing::MakeRoom(uint64_t bytes, uint64_t* base, bool* polled) {
  if (!Place(bytes, base)) return false;
  if (MayStart(bytes)) return true;
  if (std::exchange(*polled, true)) return false;
  reader_.Poll();
  if (kv_ != nullptr && kv_->active()) kv_->reader().Poll();
  return MayStart(bytes);
}

bool TileRing::StartTiles(uint32_t tile, bool* polled) {
  if (n_tile_spans_ >= WeightReader::kMaxInFlight - kEmbedRowsTogether * kMostEmbedReads) {
    return false;
  }
  Span span = SpanFrom(tile);
  const uint64_t bytes = span.end;
  if (!MakeRoom(bytes, &span.base, polled)) return false;
  span.begin = span.base;
  span.end = span.base + bytes;
  const bool wraps = tile < next_;
  // A read that cannot be started is tried again, and reported, when the tile is acquired.
  if (!Start(span).ok()) return false;
  if (wraps) ++round_;
  return true;
}

bool TileRing::KvReaderTakesMore() {
  size_t n_kept = 0;
  for (size_t i = 0; i < n_spans_; ++i) {
    Span& span = At(i);
    if (!span.is_kv() || !span.pending) continue;
    // An error is for who takes it.
    if (kv_->reader().Arrived(span.ticket)) static_cast<void>(Finish(&span));
    if (span.pending) ++n_kept;
  }
  return n_kept < WeightReader::kMaxInFlight;
}

bool TileRing::StartKv(bool* polled) {
  const KvReads::Run run = kv_->Next(plan_.ring_bytes / 4);
  const uint64_t wanted = kv_->BytesOf(run);
  const uint64_t bytes = ReadBufferBytes(run.offset, wanted);
  Span span;
  if (!MakeRoom(bytes, &span.base, polled) || !KvReaderTakesMore()) return false;
  const Result<uint32_t> ticket = kv_->reader().Start(run.offset, wanted, ring_ + span.base);
  if (!ticket.ok()) {
    kv_->Stop();
    return true;
  }
  // The first layers of the next pass may have all their tiles in RAM.
  if (kv_->round() > round_) {
    round_ = kv_->round();
    next_ = 0;
  }
  span.ticket = *ticket;
  span.pending = true;
  span.begin = span.base;
  span.end = span.base + bytes;
  span.kv = run;
  span.tile_begin = span.tile_end = kv_->Tile();
  span.pass = pass_ + kv_->round();
  At(n_spans_++) = span;
  kv_->Begun(run);
  return true;
}

bool TileRing::MayStart(uint64_t bytes) const {
  uint64_t under_way = 0;
  size_t n_under_way = 0;
  for (size_t i = 0; i < n_spans_; ++i) {
    const Span& span = At(i);
    if (!span.pending || ReaderOf(span).Arrived(span.ticket)) continue;
    under_way += span.end - span.base;
    ++n_under_way;
  }
  const bool two = plan_.ring_bytes >= kSpansToKeepTwo * plan_.span_bytes;
  const uint64_t kept = (two ? 2 : 1) * plan_.span_bytes;
  return n_under_way < 2 || under_way + bytes + kept <= plan_.ring_bytes;
}

uint64_t TileRing::FreeBytes() const {
  uint64_t used = 0;
  for (size_t i = 0; i < n_spans_; ++i) used += At(i).end - At(i).base;
  return plan_.ring_bytes - std::min(plan_.ring_bytes, used);
}

size_t TileRing::Find(const KvPlace& place) const {
  size_t i = 0;
  for (; i < n_spans_; ++i) {
    const Span& span = At(i);
    const KvPlace& first = span.kv.first;
    if (span.is_kv() && span.pass == pass_ && first.sequence == place.sequence &&
        first.layer == place.layer && place.block >= first.block &&
        place.block - first.block < span.kv.n) {
      break;
    }
  }
  return i;
}

Result<const std::byte*> TileRing::Take(const KvPlace& place) {
  if (kv_ == nullptr) return nullptr;
  EvictUsed();
  size_t at = Find(place);
  if (at == n_spans_) {
    while (n_spans_ > 0 && At(0).used_up) DropOldest();
    Prefetch();
    at = Find(place);
    if (at == n_spans_) return nullptr;
  }
  // What comes before it was used, or is not wanted any more.
  for (; at > 0; --at) DropOldest();
  Span& span = At(0);
  // Many at once, for a notice to the device costs as much as the rest of a small read.
  if (FreeBytes() >= plan_.span_bytes) Prefetch();
  THIMBLE_RETURN_IF_ERROR(Finish(&span));
  const uint32_t block = place.block - span.kv.first.block;
  span.used_up = block + 1 == span.kv.n;
  used_ = ring_ + span.base + span.kv.offset % kReadAlignment + block * kv_->Pitch();
  used_bytes_ = kv_->BlockBytes();
  return used_;
}

Result<const std::byte*> TileRing::Acquire(uint32_t tile) {
  EvictUsed();
  while (n_spans_ > 0 && (At(0).used_up || IsPast(At(0), tile))) DropOldest();
  if (kv_ != nullptr) kv_->Reach(tile);
  if (const std::byte* bytes = Resident(tile)) {
    Prefetch();
    return bytes;
  }
  // The oldest span has it, unless a pass ended early or became another one.
  while (n_spans_ > 0 && (tile < At(0).tile_begin || tile >= At(0).tile_end)) DropOldest();
  if (n_spans_ == 0) {
    Span span = SpanFrom(tile);
    if (Status status = Start(span); !status.ok()) return Named(status, tile);
    round_ = 0;
    if (kv_ != nullptr) {
      kv_->StartOver();
      kv_->Reach(tile);
    }
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
    ReleaseIfDone();
  } else {
    used_ = bytes;
    used_bytes_ = t.bytes;
  }
  Prefetch();
  return bytes;
}

}  // namespace thimble
