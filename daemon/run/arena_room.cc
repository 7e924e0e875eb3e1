#include "daemon/run/arena_room.h"

#include <algorithm>

#include "storage/base/bytes.h"
#include "storage/weight_reader.h"

namespace thimble {

uint64_t ArenaRoom::KvBegin() const {
  const std::byte* begin = kv_.ram_begin();
  return begin == nullptr ? plan_.small_offset : static_cast<uint64_t>(begin - arena_.all().data());
}

uint64_t ArenaRoom::LimitWith(uint64_t yielded) const {
  const uint64_t end = KvBegin();
  if (yielded == 0) return end;
  // What lies at the end of the arena for keys and values that are not there is not counted on.
  const uint64_t in_use = std::min(end, plan_.resident_end);
  const uint64_t limit = in_use - std::min(in_use, yielded);
  // Rows may lie before what is held, where they got no other place.
  return std::min(end, std::max(HeldEnd(plan_), AlignDown(limit, kReadAlignment)));
}

void ArenaRoom::Give(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  arena_.Release(begin, end);
  in_ram_bytes_ = 0;
}

void ArenaRoom::Release(uint64_t values_end) {
  if (yielded_bytes_ == 0) return;
  // A huge page that reached into it would be in RAM as a whole once a part of it is used.
  const uint64_t begin = std::max(Limit(), values_end);
  const uint64_t end = KvBegin();
  if (begin >= end) return;
  arena_.UseSmallPages(begin, end);
  Give(begin, end);
}

void ArenaRoom::ReleaseSlot(std::span<std::byte> memory) {
  const auto offset = static_cast<uint64_t>(memory.data() - arena_.all().data());
  const uint64_t begin = std::max(offset, HeldEnd(plan_));
  const uint64_t end = offset + memory.size();
  if (begin >= end) return;
  arena_.UseSmallPages(begin, end);
  Give(begin, end);
}

void ArenaRoom::ReleaseWideValues() {
  Give(HeldEnd(plan_), std::min(plan_.resident_offset, KvBegin()));
}

void ArenaRoom::ReleaseAll() {
  ReleaseWideValues();
  Release(0);
  Give(std::max(plan_.resident_end, plan_.step_end), KvBegin());
}

uint64_t ArenaRoom::MostWith(uint64_t yielded) const {
  const uint64_t back = plan_.peak_bytes - std::min(plan_.peak_bytes, KvBegin());
  const uint64_t front = std::max(std::min(LimitWith(yielded), plan_.resident_end), HeldEnd(plan_));
  // For a prompt's values keys and values make room.
  const uint64_t wide_end = std::max(plan_.wide_end, HeldEnd(plan_));
  const uint64_t wide = std::min(wide_end + back, plan_.peak_bytes - plan_.options.spare_bytes);
  // A small arena ends before a huge page would.
  return std::min(std::max(front + back, wide), plan_.peak_bytes);
}

uint64_t ArenaRoom::SpareInUse() const {
  const uint64_t begin = KvBegin();
  const uint64_t in_use = std::min(begin, plan_.resident_end) + plan_.peak_bytes - begin;
  return in_use - std::min(in_use, plan_.options.budget_bytes);
}

uint64_t ArenaRoom::Growth(uint64_t yielded, uint64_t enough, bool in_pass) {
  const uint64_t limit = Limit();
  const uint64_t kv_begin = KvBegin();
  if (limit != limit_ || kv_begin != kv_begin_) {
    limit_ = limit;
    kv_begin_ = kv_begin;
    in_ram_bytes_ = 0;
    if (!in_pass) Release(0);
  }
  const uint64_t most = MostWith(yielded);
  if (most > in_ram_bytes_ + enough) {
    in_ram_bytes_ = arena_.InRam(0, AlignDown(plan_.peak_bytes, kReadAlignment));
  }
  return most - std::min(most, in_ram_bytes_);
}

}  // namespace thimble
