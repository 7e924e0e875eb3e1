// What `thimble top` shows of two statuses of the daemon: text, and nothing of the terminal's
// modes. Called by: top. Memory: a screenful.
#pragma once

#include <string>
#include <vector>

#include "thimble/v1/thimble.pb.h"

namespace thimble {

// Between two statuses.
struct Rates {
  double generated_tokens = 0;  // a second
  double prompt_tokens = 0;
  double flash_bytes = 0;
  double passes = 0;
  double stalled = 0;  // part of the time that was spent waiting for flash, 0 to 1
};
// By the daemon's own clock; zero where that stood still or went back (another daemon).
Rates RatesBetween(const v1::GetStatusResponse& before, const v1::GetStatusResponse& now);

// Who holds the memory, in bytes. They add up to what is in use, except that buffers and weights
// are as planned, which is more than is used at the beginning.
struct Owners {
  uint64_t weights = 0;  // resident ones
  uint64_t buffers = 0;  // the rest of the arena
  uint64_t program = 0;  // program, gRPC, LMDB's dirty pages, kernel
  uint64_t cache = 0;    // page cache, which the kernel takes back
};
Owners OwnersOf(const v1::GetStatusResponse& status);

struct ViewStyle {
  int columns = 80;
  bool utf8 = false;
  bool color = false;
};

// Lines without their ends, none wider than the columns (escape sequences not counted).
std::vector<std::string> TopLines(const v1::GetStatusResponse& now, const Rates& rates,
                                  const ViewStyle& style);

// The same as one plain line, for a log.
std::string PlainLine(const v1::GetStatusResponse& now, const Rates& rates);

}  // namespace thimble
