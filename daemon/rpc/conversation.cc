// From a Conversation to its tokens, in the model's own chat format.
#include <vector>

#include "daemon/rpc/generation_request.h"

namespace thimble {
namespace {

constexpr int kMaxMessages = 256;

Result<ChatRole> ToRole(int index, v1::Role role) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return ChatRole::kSystem;
    case v1::ROLE_USER:
      return ChatRole::kUser;
    case v1::ROLE_ASSISTANT:
      return ChatRole::kAssistant;
    default:
      return InvalidArgumentError("messages[" + std::to_string(index) + "].role " +
                                  std::to_string(static_cast<int>(role)) +
                                  ": 1 (system), 2 (user) or 3 (assistant)");
  }
}

}  // namespace

Result<std::vector<TokenId>> TokenizeConversation(const v1::Conversation& conversation,
                                                  const RpcContext& context) {
  if (!context.chat->ok()) return context.chat->status();
  if (conversation.messages_size() > kMaxMessages) {
    return InvalidArgumentError("messages with " + std::to_string(conversation.messages_size()) +
                                " of them: at most " + std::to_string(kMaxMessages));
  }
  std::vector<ChatTurn> turns;
  turns.reserve(static_cast<size_t>(conversation.messages_size()));
  size_t bytes = 0;
  for (int i = 0; i < conversation.messages_size(); ++i) {
    const v1::ChatMessage& message = conversation.messages(i);
    THIMBLE_ASSIGN_OR_RETURN(const ChatRole role, ToRole(i, message.role()));
    turns.push_back({role, message.content()});
    bytes += message.content().size();
  }
  THIMBLE_RETURN_IF_ERROR(CheckPromptBytes("messages", bytes, context.services));
  return (*context.chat)->Encode(turns, context.services.tokenizer);
}

}  // namespace thimble
