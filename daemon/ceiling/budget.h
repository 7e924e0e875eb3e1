// What of the ceiling is left for the plan's arena. The constants stand here and nowhere else.
// Called by: main, `thimble plan`.
#pragma once

#include <cstdint>

#include "storage/base/bytes.h"

namespace thimble {

// What the control group holds besides the arena:
//  - the program: a static gRPC server has 8 MB of file-backed pages (measured: DESIGN.md, "The one
//    thread"); start-up code and unused library code is never touched again and is given back under
//    pressure, less than half stays hot;
inline constexpr uint64_t kReserveProgramBytes = 3 * kMiB + 512 * kKiB;
//  - the heap: 0.6 MB anonymous in the same measurement, and the tokenizer, requests, stacks;
inline constexpr uint64_t kReserveHeapBytes = 2 * kMiB;
//  - the kernel's share: page tables, sockets, the rings of io_uring, slab;
inline constexpr uint64_t kReserveKernelBytes = 1 * kMiB;
//  - LMDB: dirty pages of one transaction and the hot pages of both maps.
inline constexpr uint64_t kReserveLmdbBytes = 1 * kMiB + 512 * kKiB;

inline constexpr uint64_t kReserveMinBytes =
    kReserveProgramBytes + kReserveHeapBytes + kReserveKernelBytes + kReserveLmdbBytes;
// Above 64 MiB of ceiling the page cache gets more: less reading of the program and of LMDB again.
inline constexpr uint64_t kReserveMaxBytes = 12 * kMiB;
inline constexpr uint64_t kReserveDivisor = 8;

// Of the ceiling, not the arena's: 8 MiB up to 64 MiB, 1/8 up to 96 MiB, then 12 MiB.
uint64_t ReserveBytes(uint64_t ceiling_bytes);

// The arena's budget, a multiple of 4096. UINT64_MAX where there is no ceiling (UINT64_MAX); 0
// where the reserve alone is over it, which no plan fits.
uint64_t BudgetBytes(uint64_t ceiling_bytes);

}  // namespace thimble
