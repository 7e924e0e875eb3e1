// Tokenize and Detokenize.
#include <array>
#include <string>

#include "daemon/rpc/answers.h"
#include "daemon/rpc/generation_request.h"
#include "daemon/rpc/message.h"
#include "daemon/rpc/utf8.h"

namespace thimble {
namespace {

constexpr size_t kMaxPieces = 4096;  // 64 bytes and its own each
constexpr int kMaxIds = 65536;       // of Detokenize
constexpr size_t kMaxTextBytes = 512 << 10;

constexpr std::array kTokenizeStrings = {
    StringField{.number = 1, .name = "text"},
    StringField{.number = 2, .name = "conversation", .inside = kConversationStrings}};

Result<std::vector<TokenId>> Ids(const RpcContext& context, const v1::TokenizeRequest& message) {
  switch (message.input_case()) {
    case v1::TokenizeRequest::kText:
      return TokenizeText("text", message.text(),
                          {.add_special = !message.has_add_special() || message.add_special(),
                           .parse_special = message.parse_special()},
                          context);
    case v1::TokenizeRequest::kConversation:
      return TokenizeConversation(message.conversation(), context);
    case v1::TokenizeRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidArgumentError("text or conversation: one of them must be set");
}

// What Decode gives, and with `show_special` the texts of special tokens too.
Result<std::string> TextOf(Tokenizer& tokenizer, const v1::DetokenizeRequest& message) {
  const std::vector<TokenId> ids(message.ids().begin(), message.ids().end());
  if (!message.show_special()) return tokenizer.Decode(ids);
  std::string text;
  std::vector<TokenId> run;  // without special ones
  const auto take_run = [&]() -> Status {
    THIMBLE_ASSIGN_OR_RETURN(const std::string decoded, tokenizer.Decode(run));
    text += decoded;
    run.clear();
    return {};
  };
  for (const TokenId id : ids) {
    THIMBLE_ASSIGN_OR_RETURN(const std::string hidden, tokenizer.TokenBytes(id, false));
    THIMBLE_ASSIGN_OR_RETURN(const std::string shown, tokenizer.TokenBytes(id, true));
    if (hidden == shown) {
      run.push_back(id);
      continue;
    }
    THIMBLE_RETURN_IF_ERROR(take_run());
    text += shown;
  }
  THIMBLE_RETURN_IF_ERROR(take_run());
  return text;
}

}  // namespace

Status AnswerTokenize(RpcContext& context, const grpc::ByteBuffer& request,
                      grpc::ByteBuffer* response) {
  v1::TokenizeRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(request, kTokenizeStrings, &message));
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, Ids(context, message));
  v1::TokenizeResponse m;
  m.mutable_ids()->Add(ids.begin(), ids.end());
  if (message.pieces()) {
    if (ids.size() > kMaxPieces) {
      return OutOfRangeError("pieces of " + std::to_string(ids.size()) + " tokens: at most " +
                             std::to_string(kMaxPieces));
    }
    for (const TokenId id : ids) {
      THIMBLE_ASSIGN_OR_RETURN(*m.add_pieces(), context.services.tokenizer.TokenBytes(id, true));
    }
  }
  *response = ToBytes(m);
  return {};
}

Status AnswerDetokenize(RpcContext& context, const grpc::ByteBuffer& request,
                        grpc::ByteBuffer* response) {
  v1::DetokenizeRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(request, {}, &message));
  if (message.ids_size() > kMaxIds) {
    return InvalidArgumentError("ids with " + std::to_string(message.ids_size()) +
                                " tokens: at most " + std::to_string(kMaxIds));
  }
  Tokenizer& tokenizer = context.services.tokenizer;
  THIMBLE_RETURN_IF_ERROR(
      CheckTokenIds("ids", {message.ids().data(), static_cast<size_t>(message.ids_size())},
                    tokenizer.vocab_size()));
  THIMBLE_ASSIGN_OR_RETURN(const std::string bytes, TextOf(tokenizer, message));
  if (bytes.size() > kMaxTextBytes) {
    return OutOfRangeError("the text of " + std::to_string(message.ids_size()) + " tokens has " +
                           std::to_string(bytes.size()) + " bytes: at most " +
                           std::to_string(kMaxTextBytes));
  }
  v1::DetokenizeResponse m;
  m.set_text(ToValidUtf8(bytes));
  if (m.text() != bytes) m.set_raw(bytes);
  *response = ToBytes(m);
  return {};
}

}  // namespace thimble
