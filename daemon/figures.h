// Figures of the status that are worked out of others. Called by: the engine's Describe. Memory:
// none kept.
#pragma once

#include <cstdint>
#include <string_view>

#include "daemon/ceiling/ceiling.h"
#include "daemon/run/runner.h"
#include "daemon/status.h"

namespace thimble {

// Splits what the group uses. Every part is clamped, since the kernel's counters are not taken at
// the same moment: the parts add up to usage.current unless page cache and arena alone are more.
MemoryOwners SplitByOwner(const CeilingUsage& usage, const ArenaUse& arena);

// From the text of /proc/self/io: the bytes that the process has had written to disk. 0 where the
// kernel does not count them.
uint64_t WriteBytes(std::string_view io);

}  // namespace thimble
