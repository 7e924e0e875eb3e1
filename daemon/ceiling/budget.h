// What of the ceiling is left for the plan's arena. The constants stand here and nowhere else.
// Called by: main, `thimble plan`.
#pragma once

#include <cstdint>

#include "storage/base/bytes.h"

namespace thimble {

// What the control group holds besides the arena, measured on amd64 with SmolLM2-135M at ceilings
// of 16, 24 and 64 MiB:
//  - the program's own pages that stay in use, locked: 4.2 to 4.8 MiB (program_pages.h);
//  - shared libraries' pages: 1.5 to 2 MiB;
//  - the heap, stacks and LMDB's dirty pages: 1.2 MiB anonymous; up to 32 connections
//  (rpc/connections.h)
//    take 1.1 MiB more;
//  - the kernel: page tables, sockets, the rings of io_uring, slab: 0.5 to 0.7 MiB;
//  - LMDB's pages of keys and values and of the vocabulary: what is left, given back under
//  pressure.
// With 10 MiB the daemon has 20 major faults in 60 tokens, with 8 MiB 400.
inline constexpr uint64_t kReserveBytes = 10 * kMiB;
// Below 20 MiB of ceiling half of it, for the arena has more use for the rest; at least this much.
inline constexpr uint64_t kReserveMinBytes = 8 * kMiB;

// Of the ceiling, not the arena's: 8 MiB up to 16 MiB, half up to 20 MiB, then 10 MiB.
uint64_t ReserveBytes(uint64_t ceiling_bytes);

// The arena's budget, a multiple of 4096. UINT64_MAX where there is no ceiling (UINT64_MAX); 0
// where the reserve alone is over it, which no plan fits.
uint64_t BudgetBytes(uint64_t ceiling_bytes);

}  // namespace thimble
