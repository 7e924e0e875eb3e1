// `thimble tokenize --model`: the ids of a text, without a daemon. The vocabulary index is made in
// a temporary directory and removed again. Memory: the tokenizer, under 1 MiB, and the text.
#include <utility>

#include "client/offline.h"
#include "client/tokenize.h"
#include "daemon/model/model.h"
#include "daemon/model/tokenizer.h"
#include "storage/base/file.h"
#include "storage/vocab_index.h"

namespace thimble {

Result<Tokens> TokenizeOffline(const TokenizeCommand& command, const std::string& text) {
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, OpenFile(command.model));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(*file));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<ScratchCache> cache, ScratchCache::Make());
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<VocabIndex> index,
                           VocabIndex::Open(cache->env(), model->fingerprint));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                           Tokenizer::Open(*model, *file, *index));
  EncodeOptions encode;
  encode.parse_special = command.special;
  Tokens tokens;
  THIMBLE_ASSIGN_OR_RETURN(tokens.ids, tokenizer->Encode(text, encode));
  if (!command.pieces) return tokens;
  for (const TokenId id : tokens.ids) {
    THIMBLE_ASSIGN_OR_RETURN(std::string piece, tokenizer->TokenBytes(id, /*special=*/true));
    tokens.pieces.push_back(std::move(piece));
  }
  return tokens;
}

}  // namespace thimble
