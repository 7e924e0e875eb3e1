// The check of a file's vocabulary: the arrays that a tokenizer will read later, streamed from the
// file once when the model is loaded, so that a malformed one is refused at start and not while
// serving. Called by: LoadModel. Memory: one buffer of 64 KiB and one string.
#pragma once

#include "daemon/model/gguf.h"
#include "storage/base/file.h"
#include "storage/base/status.h"

namespace thimble {

// OK for a file without any vocabulary (it can be run by token ids alone). Otherwise:
//  - tokenizer.ggml.model: a string; "llama" needs scores, "gpt2" needs merges;
//  - tokenizer.ggml.tokens: strings, at least one;
//  - tokenizer.ggml.scores: float32, one a token, no NaN;
//  - tokenizer.ggml.token_type: int32, one a token, 0 to 6; those of type 6 are "<0x00>" to
//  "<0xFF>",
//    each at most once;
//  - tokenizer.ggml.merges: strings, each two pieces with a space between;
//  - the ids of special tokens that a generation uses: below the number of tokens.
// INVALID_ARGUMENT errors name the key and the element.
Status ValidateVocabulary(RandomAccessFile& file, const Gguf& gguf);

}  // namespace thimble
