// The two ways of `thimble tokenize`: by the daemon, and without one. Called by: tokenize.cc.
// Memory: the tokens of a text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/commands.h"
#include "storage/base/status.h"

namespace thimble {

struct Tokens {
  std::vector<int32_t> ids;
  std::vector<std::string> pieces;  // bytes; empty unless asked for
};

// With command.model's own tokenizer.
Result<Tokens> TokenizeOffline(const TokenizeCommand& command, const std::string& text);

}  // namespace thimble
