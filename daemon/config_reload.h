// What SIGHUP does: the options are read again from all their sources; what can change without a
// restart does, and the log names what cannot. Called by: main, from the event loop's handler.
// Memory: that of reading the options, a few KiB, freed at the end.
#pragma once

#include "daemon/config_sources.h"

namespace thimble {

// `in_force` is what the daemon runs with, and is updated; `fresh` is what was read now. An error
// in it changes nothing and is logged.
void ApplyReread(const Result<Invocation>& fresh, Config& in_force);

}  // namespace thimble
