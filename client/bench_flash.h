// How fast a file can be read from flash: what `thimble flash` prints, and what the bound of
// `thimble bench` is computed from. Called by: main, bench.cc. Memory: 1 MiB a read in flight.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

struct FlashRate {
  std::string method;           // "io_uring, 2 in flight"
  double bytes_per_second = 0;  // the median of the rounds
  unsigned rounds = 0;
};

// Reads the file round and round, 1 MiB at a time, in each of the ways there are: the daemon's own
// reader with 2, 4 ... reads in flight; plain pread past the page cache, as `dd iflag=direct`;
// plain read through it with the kernel's own read-ahead, having dropped what it held, as `dd`. A
// reading ends after 256 MiB or two seconds; rounds over all ways are repeated, five at most, until
// two seconds have passed. Ways that the system refuses are left out. The fastest first. With
// `only` that way alone, by its name; NOT_FOUND where it is not there.
Result<std::vector<FlashRate>> MeasureFlash(const std::string& path, const std::string& only = {});

}  // namespace thimble
