// Generate's events as JSON, one object a line; scripts read these: never change names or meanings.
// Called by: `thimble generate --json`. Memory: one line.
#pragma once

#include <string>
#include <string_view>

#include "thimble/v1/thimble.pb.h"

namespace thimble {

std::string_view FinishReasonText(v1::FinishReason reason);  // "length", "end_of_text", "stop", ...

// {"event":"token","index":0,"id":407,"text":" time","log_probability":-0.1}. Empty for an event of
// a later version of the API.
std::string EventJson(const v1::GenerateEvent& event);

}  // namespace thimble
