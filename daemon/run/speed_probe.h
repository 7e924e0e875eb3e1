// How fast this machine's flash and processor are, measured once at start with the model itself:
// what the planner sizes its reads by, and what the log and the status tell. Called by: the
// daemon's engine, before the plan is made. Memory while it runs: 2 MiB and a row.
#pragma once

#include "daemon/model/model.h"
#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

struct SpeedProbe {
  // Of reading the model, several reads under way. At most 8 MiB are read, for at most 0.2 s and a
  // read.
  double flash_bytes_per_second = 0;
  // Of the model's own type of weights, times one row, from the processor's caches: RAM may be
  // slower. For 10 ms.
  double processor_bytes_per_second = 0;
};

// Errors: the reader's.
Result<SpeedProbe> ProbeSpeed(RandomAccessFile& file, ReaderBackend backend, const Model& model);

}  // namespace thimble
