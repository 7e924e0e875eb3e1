// How fast this machine's flash and processor are, measured once at start with the model itself:
// what the planner sizes its reads by, and what the log and the status tell. Called by: the
// daemon's engine, before the plan is made. Memory while it runs: 2 MiB and eight rows.
#pragma once

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "storage/base/file.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

// At most 8 MiB are read, for at most 0.2 s and a read; products are computed for 10 ms, with one
// row and with eight, at least one of each. Errors: the reader's.
Result<Speeds> ProbeSpeed(RandomAccessFile& file, ReaderBackend backend, const Model& model);

}  // namespace thimble
