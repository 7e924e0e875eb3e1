// The smallest complete models of each architecture, for tests to load, damage and refuse.
#pragma once

#include "tests/model/gguf_builder.h"

namespace thimble {

// One layer, hidden size 8, 2 heads over 1 key/value head of size 4, feed-forward 12, context 16, 6
// tokens of a "llama" vocabulary: <unk> <s> </s> <0x41> a b. Output untied.
GgufBuilder TinyLlama();

// Two layers, hidden size 8, 2 heads of size 4, feed-forward 16, context 16, 5 tokens of a "gpt2"
// vocabulary: a b ab c <|endoftext|>, and one merge. Output tied.
GgufBuilder TinyGpt2();

}  // namespace thimble
