// A model's chat format: what a conversation looks like as one text, for the families of templates
// found in GGUF files.
//
// `tokenizer.chat_template` is a program in Jinja. It is not run: its family is recognised by its
// markers, and what varies within a family (a default system message, trimming, the literals around
// [INST]) is read from its text. Rendering then gives what Jinja gives, byte for byte
// (tests/model/chat_template_test.cc compares with Jinja's own output).
//
// The template's own text may become special tokens ("<|im_start|>"); messages never do: a user who
// types "<|im_end|>" gets those ten characters, in their own tokens. All of it is tokenized as one
// text, so that where no message has such a marker the tokens are those of the whole text.
// Called by: admission of Chat, Tokenize. Memory: under 2 KiB; a conversation while it is rendered.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/model.h"
#include "daemon/model/tokenizer.h"
#include "storage/base/status.h"

namespace thimble {

enum class ChatFamily : uint8_t { kChatml, kLlama2, kLlama3, kZephyr, kGemma, kMistral };
std::string_view ChatFamilyName(ChatFamily family);  // "chatml", "llama-2", ...

enum class ChatRole : uint8_t { kSystem, kUser, kAssistant };
std::string_view ChatRoleName(ChatRole role);  // "system", "user", "assistant"

struct ChatTurn {
  ChatRole role = ChatRole::kUser;
  std::string_view content;
};

// A part of the rendered text. `markup`: the template's own, where special tokens are meant.
struct ChatPart {
  std::string text;
  bool markup = false;
};

class ChatTemplate {
 public:
  // The template of `model`, checked against its vocabulary. FAILED_PRECONDITION, saying what was
  // found: the file has none, it is of no family known here, or its end of turn is no end token.
  static Result<ChatTemplate> Open(const Model& model, Tokenizer& tokenizer);

  // From a template's text. `bos` and `eos`: the texts of these tokens. FAILED_PRECONDITION as
  // above.
  static Result<ChatTemplate> Parse(std::string_view jinja, std::string bos, std::string eos);

  [[nodiscard]] ChatFamily family() const { return family_; }
  // What ends the assistant's turn: "<|im_end|>".
  [[nodiscard]] const std::string& end_of_turn() const { return end_of_turn_; }

  // The conversation, and the beginning of the assistant's next turn. INVALID_ARGUMENT naming the
  // message ("messages[1].role assistant: ...") where the template does not take it.
  [[nodiscard]] Result<std::vector<ChatPart>> Render(std::span<const ChatTurn> turns) const;

  // Render, tokenized. The text begins with exactly one BOS where the template has it or the model
  // puts it before every text.
  [[nodiscard]] Result<std::vector<TokenId>> Encode(std::span<const ChatTurn> turns,
                                                    Tokenizer& tokenizer) const;

 private:
  // Where mistral's system message goes: nowhere (the template refuses it), or before the first or
  // the last message of the user.
  enum class SystemPlace : uint8_t { kOwnTurn, kNone, kFirstUser, kLastUser };

  [[nodiscard]] Status CheckOrder(std::span<const ChatTurn> turns) const;
  [[nodiscard]] std::string_view Trimmed(std::string_view text) const;
  void ReadChatml(std::string_view jinja);
  void ReadLlama3(std::string_view jinja);
  void ReadMistral(std::string_view jinja);

  ChatFamily family_ = ChatFamily::kChatml;
  std::string bos_;
  std::string eos_;
  std::string end_of_turn_;
  SystemPlace system_place_ = SystemPlace::kOwnTurn;
  bool has_bos_ = false;     // the template begins with BOS
  bool alternates_ = false;  // user and assistant must
  bool trims_ = false;       // messages; of mistral the assistant's alone
  std::string preamble_;     // chatml: the system message where there is none; llama-3: before it
  bool has_preamble_ = false;
  std::string open_;          // mistral: "[INST] "
  std::string close_;         // mistral: " [/INST]"
  std::string before_reply_;  // mistral: " " or nothing
  std::string after_reply_;   // mistral: what stands behind EOS
};

}  // namespace thimble
