// How the client library reports failure. In an installation this name is the file itself.
// Called by: thimble/client.h. Holds nothing.
#pragma once

#include "storage/base/status.h"
