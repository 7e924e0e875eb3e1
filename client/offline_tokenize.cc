// `thimble tokenize`: the ids of a text, without a daemon. The vocabulary index is made in a
// temporary directory and removed again. Memory: the tokenizer, under 1 MiB, and the text.
#include <cstdio>
#include <iostream>
#include <iterator>

#include "client/commands.h"
#include "client/json_line.h"
#include "client/offline.h"
#include "daemon/model/model.h"
#include "daemon/model/tokenizer.h"
#include "storage/base/file.h"
#include "storage/vocab_index.h"

namespace thimble {
namespace {

Result<std::vector<TokenId>> Tokenize(const TokenizeCommand& command) {
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, OpenFile(command.model));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(*file));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<ScratchCache> cache, ScratchCache::Make());
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<VocabIndex> index,
                           VocabIndex::Open(cache->env(), model->fingerprint));
  THIMBLE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                           Tokenizer::Open(*model, *file, *index));
  EncodeOptions encode;
  encode.parse_special = command.special;
  if (command.text != "-") return tokenizer->Encode(command.text, encode);
  return tokenizer->Encode(std::string(std::istreambuf_iterator<char>(std::cin), {}), encode);
}

}  // namespace

int RunTokenizeCommand(const TokenizeCommand& command) {
  const Result<std::vector<TokenId>> ids = Tokenize(command);
  if (!ids.ok()) {
    PrintError(ids.status(), command.json);
    return kExitFailed;
  }
  std::string text;
  for (const TokenId id : *ids) {
    if (!text.empty()) text += command.json ? "," : " ";
    text += std::to_string(id);
  }
  if (command.json) text = JsonLine().AddRaw("ids", "[" + text + "]").str();
  (void)std::printf("%s\n", text.c_str());
  return kExitOk;
}

}  // namespace thimble
