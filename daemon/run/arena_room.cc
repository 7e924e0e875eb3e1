#include "daemon/run/arena_room.h"

#include <algorithm>
#include <utility>

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
  return std::max(plan_.resident_offset, AlignDown(limit, Arena::kHugePageBytes));
}

void ArenaRoom::Give(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  arena_.Release(begin, end);
  in_ram_bytes_ = 0;
}

void ArenaRoom::Release(uint64_t values_end) {
  if (yielded_bytes_ == 0) return;
  // Whole huge pages: what is written to a part of one again would take small pages. Where no slot
  // lies over weights, the last page of these goes too.
  const uint64_t begin = AlignUp(std::max(Limit(), values_end), Arena::kHugePageBytes);
  const uint64_t kv_begin = KvBegin();
  const bool over = kv_begin < plan_.resident_end;
  Give(begin, over ? AlignDown(kv_begin, Arena::kHugePageBytes) : kv_begin);
}

void ArenaRoom::ReleaseWideValues() {
  // What is before step_end may be registered with the kernel, which holds it then, and the huge
  // page in which it ends.
  const uint64_t begin =
      plan_.Streams() ? AlignUp(plan_.step_end, Arena::kHugePageBytes) : plan_.step_end;
  Give(begin, std::min(plan_.resident_offset, KvBegin()));
}

void ArenaRoom::ReleaseAll() {
  ReleaseWideValues();
  Release(0);
  Give(std::max(plan_.resident_end, plan_.step_end), KvBegin());
}

ArenaRoom::Extent ArenaRoom::ExtentWith(uint64_t yielded) const {
  const uint64_t kv_begin = KvBegin();
  // A slot that lies over resident tiles takes all of the huge page in which it begins.
  const uint64_t kv_page = AlignDown(kv_begin, Arena::kHugePageBytes);
  const uint64_t back_begin = kv_begin < plan_.resident_end ? kv_page : kv_begin;
  // The huge page in which a prompt's values end is not given back.
  uint64_t values_end = plan_.wide_end;
  if (yielded != 0) {
    values_end =
        std::max(values_end, std::min(AlignUp(values_end, Arena::kHugePageBytes), kv_page));
  }
  const uint64_t front_end = std::max(std::min(LimitWith(yielded), plan_.resident_end), values_end);
  return {front_end, std::clamp(back_begin, front_end, std::max(front_end, plan_.peak_bytes))};
}

uint64_t ArenaRoom::Growth(uint64_t yielded, uint64_t enough, bool in_pass) {
  const Extent extent = ExtentWith(yielded_bytes_);
  if (extent != std::exchange(extent_, extent)) {
    in_ram_bytes_ = 0;
    if (!in_pass) Release(0);
  }
  const Extent then = yielded == yielded_bytes_ ? extent : ExtentWith(yielded);
  const uint64_t most = then.front_end + plan_.peak_bytes - then.back_begin;
  if (most > in_ram_bytes_ + enough) {
    in_ram_bytes_ = arena_.InRam(0, AlignDown(extent.front_end, kReadAlignment)) +
                    arena_.InRam(extent.back_begin, AlignDown(plan_.peak_bytes, kReadAlignment));
  }
  return most - std::min(most, in_ram_bytes_);
}

}  // namespace thimble
