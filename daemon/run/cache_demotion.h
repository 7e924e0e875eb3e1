// Used bytes of the ring, moved from this core's own caches to the one that cores share. A virtual
// disk is a thread of another core that copies the next tile over them: each line that this core
// still holds has to be taken from it first, and with a ring no larger than the second-level cache
// it holds all of them. Measured on a Xeon with 2 MiB of that cache, reads of 512 KiB into a ring
// of 2 MiB (ring_bench): 3.5 GB/s where nobody looks at the bytes, 2.1 where they are added up, 3.0
// where they are added up and moved; into 3 MiB 2.2 and 2.7; SmolLM2-135M in Q4_0 at 16 MiB: 25 and
// 34 tokens/s. Moving costs the processor 25 to 60 us a MiB there, of that token 6 ms, and of a
// ring of 6 MiB it gains nothing: so it is done only for a small ring, while the flash is what
// passes wait for. Intel's CLDEMOTE (Software Developer's Manual, volume 2A), from Sapphire Rapids
// and Tremont on; elsewhere nothing is done. Called by: TileRing. Memory: none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thimble {

// Whether the processor has the instruction, and a second-level cache that holds most of a ring of
// so many bytes: two thirds.
bool DemotionHelps(uint64_t ring_bytes);
// The lines that hold [begin, begin + bytes). A hint: nothing fails, and no byte changes.
void Demote(const std::byte* begin, size_t bytes);

// Whether passes wait for the flash. `helps`: else it is never active.
class CacheDemotion {
 public:
  explicit CacheDemotion(bool helps) : helps_(helps) {}

  // A part of the time from a pass's beginning to the next one's, in percent: waited for more,
  // moving begins; for less, it ends. Between them lies what moving itself changes. After a pause
  // between requests the first pass does without.
  static constexpr uint64_t kBeginPercent = 50;
  static constexpr uint64_t kEndPercent = 25;

  // A pass begins: the steady clock, and what has been waited for the flash so far, in nanoseconds.
  void BeginPass(uint64_t now_ns, uint64_t stall_ns);
  [[nodiscard]] bool active() const { return active_; }

 private:
  const bool helps_;
  uint64_t now_ns_ = 0;
  uint64_t stall_ns_ = 0;
  bool active_ = false;
};

}  // namespace thimble
