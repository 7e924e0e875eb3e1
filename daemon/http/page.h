// The status page: one file without outside resources, made of daemon/http/page/ at build time and
// kept with the program's constants. It is sent from there. Called by: the routes. Memory: no heap;
// the pages of the program that hold it come into RAM when it is first asked for.
#pragma once

#include <string_view>

namespace thimble {

extern const std::string_view kStatusPage;
// Header lines that let the page use its own style and script, by their hashes, and nothing else.
extern const std::string_view kStatusPageHeaders;

}  // namespace thimble
