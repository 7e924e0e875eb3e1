#include "daemon/run/cache_demotion.h"

#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace thimble {

#if defined(__x86_64__) || defined(__i386__)

bool DemotionHelps(uint64_t ring_bytes) {
  constexpr unsigned kCldemote = 1U << 25;  // of ECX, leaf 7
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kCldemote) == 0) return false;
  const long cache_bytes = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  return cache_bytes > 0 && ring_bytes <= static_cast<uint64_t>(cache_bytes) * 3 / 2;
}

void Demote(const std::byte* begin, size_t bytes) {
  constexpr size_t kLine = 64;
  const size_t before = reinterpret_cast<uintptr_t>(begin) % kLine;
  const std::byte* const end = begin + bytes;
  // Where a processor lacks it, its code is that of a NOP.
  for (const std::byte* line = begin - before; line < end; line += kLine) {
    asm volatile("cldemote %0" : : "m"(*line));
  }
}

#else

bool DemotionHelps(uint64_t /*ring_bytes*/) { return false; }
void Demote(const std::byte* /*begin*/, size_t /*bytes*/) {}

#endif

void CacheDemotion::BeginPass(uint64_t now_ns, uint64_t stall_ns) {
  const uint64_t took = now_ns - now_ns_;
  const uint64_t waited = stall_ns - stall_ns_;
  const bool first = now_ns_ == 0;
  now_ns_ = now_ns;
  stall_ns_ = stall_ns;
  if (first || !helps_) return;
  active_ = waited * 100 > took * (active_ ? kEndPercent : kBeginPercent);
}

}  // namespace thimble
