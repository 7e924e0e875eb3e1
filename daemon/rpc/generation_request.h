// From the requests of Generate and Chat to the scheduler's, every field checked.
// Called by: the calls, Tokenize. Memory: none kept.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/rpc/context.h"
#include "daemon/rpc/message.h"

namespace thimble {

inline constexpr std::array kMessageStrings = {StringField{.number = 2, .name = "content"}};
inline constexpr std::array kConversationStrings = {
    StringField{.number = 1, .name = "messages", .repeated = true, .inside = kMessageStrings}};

// What a call asks for, beside the scheduler's request.
struct GenerationCall {
  GenerationRequest request;
  bool log_probabilities = false;
};

// INVALID_ARGUMENT names the field, its value and its range; OUT_OF_RANGE: a prompt of more bytes
// than the context could hold; FAILED_PRECONDITION: the model has no chat template that is known.
Result<GenerationCall> ParseGenerate(const grpc::ByteBuffer& bytes, const RpcContext& context);
Result<GenerationCall> ParseChat(const grpc::ByteBuffer& bytes, const RpcContext& context);

// The parts of these that Tokenize and Detokenize share. `field` is for the message.
Result<std::vector<TokenId>> TokenizeText(std::string_view field, const std::string& text,
                                          const EncodeOptions& options, const RpcContext& context);
Result<std::vector<TokenId>> TokenizeConversation(const v1::Conversation& conversation,
                                                  const RpcContext& context);
Status CheckPromptBytes(std::string_view field, size_t bytes, const RpcServices& services);
Status CheckTokenIds(std::string_view field, std::span<const int32_t> ids, uint32_t vocab_size);

}  // namespace thimble
