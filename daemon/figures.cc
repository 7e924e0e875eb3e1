#include "daemon/figures.h"

#include <algorithm>
#include <charconv>

namespace thimble {

MemoryOwners SplitByOwner(const CeilingUsage& usage, const ArenaUse& arena) {
  const auto less = [](uint64_t a, uint64_t b) { return a > b ? a - b : 0; };
  MemoryOwners owners;
  owners.resident = std::min(arena.resident_bytes, usage.anonymous);
  owners.work = std::min(arena.work_bytes, usage.anonymous - owners.resident);
  const uint64_t locked = std::min(usage.locked, usage.page_cache);
  owners.program = usage.anonymous - owners.resident - owners.work + locked;
  owners.page_cache = usage.page_cache - locked;
  owners.kernel = less(usage.current, usage.anonymous + usage.page_cache);
  return owners;
}

uint64_t WriteBytes(std::string_view io) {
  constexpr std::string_view kKey = "\nwrite_bytes: ";
  const size_t at = io.find(kKey);
  uint64_t bytes = 0;
  if (at == std::string_view::npos) return 0;
  io.remove_prefix(at + kKey.size());
  std::from_chars(io.data(), io.data() + io.size(), bytes);
  return bytes;
}

}  // namespace thimble
