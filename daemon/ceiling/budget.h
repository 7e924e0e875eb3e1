// What of the ceiling is left for the plan's arena: the budget, which holds everywhere, and a spare
// beyond it, which the arena has as far as the group turns out to have room (pressure.h). The
// constants stand here and nowhere else.
// Called by: main, `thimble plan`.
#pragma once

#include <cstdint>

#include "storage/base/bytes.h"

namespace thimble {

// What the control group holds besides the arena, measured on amd64 with SmolLM2-135M at ceilings
// of 16, 24 and 64 MiB:
//  - the program's own pages that stay in use, locked: 2.2 to 2.6 MiB (program_pages.h);
//  - shared libraries' pages, not locked: 1.5 to 2 MiB where nobody outside the group has them in
//    RAM, as in a container of its own;
//  - the heap, stacks and LMDB's dirty pages: 1.2 MiB anonymous; 32 connections
//    (rpc/connections.h) take 1.1 MiB more;
//  - the kernel: page tables, sockets, the rings of io_uring, slab: 0.5 to 0.7 MiB;
//  - what is left: LMDB's pages of the journal, of the vocabulary and of what was just written,
//    given back under pressure. Keys and values of active requests are in the arena.
inline constexpr uint64_t kReserveBytes = 9 * kMiB;
// Below 16 MiB of ceiling nine sixteenths of it, for the arena has more use for the rest; at least
// this much.
inline constexpr uint64_t kReserveMinBytes = 8 * kMiB;
// The least of the reserve: where shared libraries are charged to others and connections are few,
// less is used.
inline constexpr uint64_t kReserveLeanBytes = 5 * kMiB;

// Of the ceiling, not the arena's: 8 MiB up to 14.2 MiB, nine sixteenths up to 16 MiB, then 9 MiB.
uint64_t ReserveBytes(uint64_t ceiling_bytes);

// The arena's budget, a multiple of 4096. UINT64_MAX where there is no ceiling (UINT64_MAX); 0
// where the reserve alone is over it, which no plan fits.
uint64_t BudgetBytes(uint64_t ceiling_bytes);

// Beyond it, a multiple of 4096: 3 to 4 MiB; 0 where there is no budget or no ceiling.
uint64_t SpareBytes(uint64_t ceiling_bytes);

}  // namespace thimble
