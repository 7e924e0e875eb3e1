// `thimbled --check-config`: what the options come to, without starting anything. Called by: main.
// Memory: the model's header while it is looked at.
#pragma once

#include <string>

#include "daemon/config_sources.h"
#include "storage/base/status.h"

namespace thimble {

// The values in force, in the form of the configuration file, each with its source in a comment.
std::string DescribeOptions(const Invocation& invocation);

// Opens the model's header, if the file is there: its name, architecture and context, as a line.
// The error is the one that the daemon's start would end with.
Result<std::string> DescribeModel(const Config& config);

}  // namespace thimble
