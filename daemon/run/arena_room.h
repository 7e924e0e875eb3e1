// What of the arena is in RAM and what may come to be: how far resident weights reach, before keys
// and values and what has been given up of them; giving RAM back that holds nothing.
//
//   [ ring | values | resident weights ... <- limit ] given up [ keys and values | small tiles ]
//
// Called by: the runner. Memory: none of its own.
#pragma once

#include <cstdint>

#include "daemon/plan/plan.h"
#include "daemon/run/arena.h"
#include "storage/kv_cache.h"

namespace thimble {

class ArenaRoom {
 public:
  // All must outlive it.
  ArenaRoom(const Plan& plan, const KvCache& kv, Arena& arena)
      : plan_(plan), kv_(kv), arena_(arena) {}

  // Of the resident set. What lies there is given back by Release.
  void GiveUp(uint64_t bytes) { yielded_bytes_ = bytes; }
  [[nodiscard]] uint64_t yielded_bytes() const { return yielded_bytes_; }
  // Where resident weights have to end: before keys and values, and what is given up.
  [[nodiscard]] uint64_t Limit() const { return LimitWith(yielded_bytes_); }

  // Gives back what lies between that, or the values of the pass (0: there is none), and the keys
  // and values, where something is given up.
  void Release(uint64_t values_end);
  // A prompt's values, where nothing else lies over them.
  void ReleaseWideValues();
  // All that holds nothing. Not in the middle of a pass.
  void ReleaseAll();

  // As Runner::Growth. Between two passes slots that have become free are given back first.
  [[nodiscard]] uint64_t Growth(uint64_t yielded, uint64_t enough, bool in_pass);

 private:
  // What may be in RAM: [0, front_end) and [back_begin, plan.peak_bytes).
  struct Extent {
    uint64_t front_end = 0;
    uint64_t back_begin = 0;
    bool operator==(const Extent&) const = default;
  };
  [[nodiscard]] uint64_t KvBegin() const;
  [[nodiscard]] uint64_t LimitWith(uint64_t yielded) const;
  [[nodiscard]] Extent ExtentWith(uint64_t yielded) const;
  void Give(uint64_t begin, uint64_t end);

  const Plan& plan_;
  const KvCache& kv_;
  Arena& arena_;
  uint64_t yielded_bytes_ = 0;
  Extent extent_;              // of the last call of Growth
  uint64_t in_ram_bytes_ = 0;  // of it, at least
};

}  // namespace thimble
