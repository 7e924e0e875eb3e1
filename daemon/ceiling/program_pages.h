// Keeps the program's own pages in RAM, those it really uses and no others.
//
// Under a tight ceiling the kernel reclaims the code that is running, and every fault of it reads
// 128 KiB around the page wanted: measured at 64 MiB, a daemon with 7 MiB left for page cache spent
// more time reading itself than its model. And most of what start-up has touched (5 MiB of a static
// gRPC server) is never needed again. So, once, when start-up is over: every page of the program is
// let go of, reading around is turned off (MADV_RANDOM), and the program's own are locked as they
// come back, one by one (mlock2 with MLOCK_ONFAULT). Those of shared libraries are not: in a
// container that has its own they are 2 MiB, and the kernel should have something to take when a
// flood of clients comes: measured at 24 MiB with eight requests and 40 clients more, a kill. Pages
// that were charged to another control group before this one was entered are charged to this one
// when they come back. Called by: main, once, when the daemon is ready. Memory: the pages that the
// program touches from then on.
#pragma once

#include "storage/base/status.h"

namespace thimble {

// Where locking is refused (RLIMIT_MEMLOCK) the error says so; the rest is in effect all the same,
// and the daemon works, slower near the ceiling.
Status KeepProgramPages();

// Lets the kernel drop what nobody has mapped of the program's file and its libraries': what was
// read around the pages that were wanted. (Linux 6.18 reads around a fault in code whatever
// MADV_RANDOM says: measured, 2 to 7 MiB after the first request.)
void DropProgramPageCache();

}  // namespace thimble
