// `thimble tokenize`: the ids of a text, by the daemon or (offline_tokenize.cc) without one.
#include "client/tokenize.h"

#include <cstdio>

#include "client/client.h"
#include "client/common.h"
#include "client/json_line.h"
#include "client/utf8_check.h"

namespace thimble {
namespace {

Result<Tokens> TokenizeByDaemon(Client& client, const TokenizeCommand& command,
                                const std::string& text) {
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_parse_special(command.special);
  request.set_pieces(command.pieces);
  THIMBLE_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, client.Tokenize(request));
  return Tokens{{response.ids().begin(), response.ids().end()},
                {response.pieces().begin(), response.pieces().end()}};
}

void PrintJson(const Tokens& tokens) {
  std::string ids;
  for (const int32_t id : tokens.ids) ids += (ids.empty() ? "" : ",") + std::to_string(id);
  JsonLine line;
  line.AddRaw("ids", "[" + ids + "]");
  std::string pieces;
  for (const std::string& piece : tokens.pieces) {
    // A part of a character is no UTF-8 and has no place in JSON.
    pieces +=
        (pieces.empty() ? "" : ",") + (CheckUtf8("", piece).ok() ? JsonLine::Quote(piece) : "null");
  }
  if (!tokens.pieces.empty()) line.AddRaw("pieces", "[" + pieces + "]");
  (void)std::printf("%s\n", line.str().c_str());
}

void PrintText(const Tokens& tokens) {
  if (tokens.pieces.empty()) {
    const char* space = "";
    for (const int32_t id : tokens.ids) {
      (void)std::printf("%s%d", space, id);
      space = " ";
    }
    (void)std::printf("\n");
    return;
  }
  for (size_t i = 0; i < tokens.ids.size() && i < tokens.pieces.size(); ++i) {
    std::string piece;
    const bool whole = CheckUtf8("", tokens.pieces[i]).ok();
    for (const char c : tokens.pieces[i]) {
      const auto byte = static_cast<unsigned char>(c);
      char hex[8];
      (void)std::snprintf(static_cast<char*>(hex), sizeof hex, "\\x%02x", byte);
      const bool printable = byte >= 0x80 ? whole : byte >= 0x20 && byte != 0x7f && c != '\\';
      piece += printable ? std::string(1, c) : static_cast<const char*>(hex);
    }
    (void)std::printf("%8d  \"%s\"\n", tokens.ids[i], piece.c_str());
  }
}

}  // namespace

int RunTokenizeCommand(const std::string& connect, const TokenizeCommand& command) {
  const Result<std::string> text = TextOrStandardInput("TEXT", command.text);
  if (!text.ok()) {
    PrintError(text.status(), command.json);
    return kExitUsage;
  }
  std::optional<Result<Tokens>> tokens;
  if (command.model.empty()) {
    int exit_code = kExitOk;
    std::optional<Client> client = ConnectOrExplain(connect, command.json, &exit_code);
    if (!client) return exit_code;
    tokens = TokenizeByDaemon(*client, command, *text);
  } else {
    tokens = TokenizeOffline(command, *text);
  }
  if (!tokens->ok()) {
    PrintError(tokens->status(), command.json);
    return kExitFailed;
  }
  if (command.json) {
    PrintJson(**tokens);
  } else {
    PrintText(**tokens);
  }
  return kExitOk;
}

}  // namespace thimble
