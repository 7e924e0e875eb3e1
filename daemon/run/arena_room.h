// What of the arena is in RAM and what may come to be: how far resident weights reach, before keys
// and values and what has been given up of them; giving RAM back that holds nothing.
//
//   [ ring | values | resident weights ... <- limit ] given up [ keys and values | small tiles ]
//
// Called by: the runner. Memory: none of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "daemon/plan/plan.h"
#include "daemon/run/arena.h"
#include "storage/kv_cache.h"

namespace thimble {

class ArenaRoom {
 public:
  // All must outlive it.
  ArenaRoom(const Plan& plan, const KvCache& kv, Arena& arena)
      : plan_(plan), kv_(kv), arena_(arena) {}

  // Of the resident set, and where that is less than the plan's spare, of the places of keys and
  // values. What lies there is given back by Release.
  void GiveUp(uint64_t bytes) { yielded_bytes_ = bytes; }
  [[nodiscard]] uint64_t yielded_bytes() const { return yielded_bytes_; }
  // Where resident weights have to end: before keys and values, and what is given up.
  [[nodiscard]] uint64_t Limit() const { return LimitWith(yielded_bytes_); }
  // Where the places of keys and values may begin beside values that end at `values_end`. A
  // prompt's pass lasts, and its rows cannot give way before it ends: they leave the spare alone.
  [[nodiscard]] uint64_t KvFrom(uint64_t values_end) const {
    const uint64_t spare = plan_.options.spare_bytes;
    const uint64_t given_up = values_end > plan_.step_end ? spare : std::min(yielded_bytes_, spare);
    return given_up == 0 ? values_end : std::max(values_end, HeldEnd(plan_)) + given_up;
  }
  // Behind the spare.
  [[nodiscard]] uint64_t SureKvFrom(uint64_t values_end) const {
    return std::max(values_end, HeldEnd(plan_)) + plan_.options.spare_bytes;
  }

  // Gives back what lies between that, or the values of the pass (0: there is none), and the keys
  // and values, where something is given up.
  void Release(uint64_t values_end);
  // The whole pages of a place that keys and values have left.
  void ReleaseSlot(std::span<std::byte> memory);
  // A prompt's values, where nothing else lies over them.
  void ReleaseWideValues();
  // All that holds nothing. Not in the middle of a pass.
  void ReleaseAll();

  // As Runner::SpareInUse.
  [[nodiscard]] uint64_t SpareInUse() const;
  // As Runner::Growth. Between two passes slots that have become free are given back first.
  [[nodiscard]] uint64_t Growth(uint64_t yielded, uint64_t enough, bool in_pass);

 private:
  [[nodiscard]] uint64_t KvBegin() const;
  [[nodiscard]] uint64_t LimitWith(uint64_t yielded) const;
  // The most that may be in RAM at once.
  [[nodiscard]] uint64_t MostWith(uint64_t yielded) const;
  void Give(uint64_t begin, uint64_t end);

  const Plan& plan_;
  const KvCache& kv_;
  Arena& arena_;
  uint64_t yielded_bytes_ = 0;
  uint64_t limit_ = 0;  // as of the last call of Growth, and where keys and values began
  uint64_t kv_begin_ = 0;
  uint64_t in_ram_bytes_ = 0;  // at least
};

}  // namespace thimble
