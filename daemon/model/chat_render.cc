// Rendering a conversation in a template's format. What each family's template says is in a comment
// at its place.
#include <array>
#include <utility>

#include "daemon/model/chat_template.h"

namespace thimble {
namespace {

// What Python's str.strip takes off: the White_Space characters of Unicode, and 0x1c to 0x1f.
constexpr std::array<std::string_view, 19> kWideSpaces = {
    "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
    "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
    "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
    "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

bool IsSpace(char c) { return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f); }

size_t SpaceBefore(std::string_view text) {
  if (text.empty()) return 0;
  if (IsSpace(text.front())) return 1;
  for (const std::string_view space : kWideSpaces) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

size_t SpaceBehind(std::string_view text) {
  if (text.empty()) return 0;
  if (IsSpace(text.back())) return 1;
  for (const std::string_view space : kWideSpaces) {
    if (text.ends_with(space)) return space.size();
  }
  return 0;
}

std::string_view TrimLeft(std::string_view text) {
  while (const size_t n = SpaceBefore(text)) text.remove_prefix(n);
  return text;
}
std::string_view TrimRight(std::string_view text) {
  while (const size_t n = SpaceBehind(text)) text.remove_suffix(n);
  return text;
}
std::string_view Trim(std::string_view text) { return TrimRight(TrimLeft(text)); }

// Collects parts, joining neighbours of one kind.
class Parts {
 public:
  Parts& Markup(std::string_view text) { return Add(text, true); }
  Parts& Content(std::string_view text) { return Add(text, false); }
  std::vector<ChatPart> Take() && { return std::move(parts_); }

 private:
  Parts& Add(std::string_view text, bool markup) {
    if (text.empty()) return *this;
    if (parts_.empty() || parts_.back().markup != markup) {
      parts_.push_back({std::string(text), markup});
    } else {
      parts_.back().text += text;
    }
    return *this;
  }
  std::vector<ChatPart> parts_;
};

Status Refused(size_t index, ChatRole role, const std::string& why) {
  return InvalidArgumentError("messages[" + std::to_string(index) + "].role " +
                              std::string(ChatRoleName(role)) + ": " + why);
}

}  // namespace

std::string_view ChatTemplate::Trimmed(std::string_view text) const {
  return trims_ ? Trim(text) : text;
}

Status ChatTemplate::CheckOrder(std::span<const ChatTurn> turns) const {
  if (turns.empty()) return InvalidArgumentError("messages: at least one");
  const bool system = turns[0].role == ChatRole::kSystem;
  const std::string name(ChatFamilyName(family_));
  if (system && system_place_ == SystemPlace::kNone) {
    return Refused(0, ChatRole::kSystem, "the model's template (" + name + ") has no such role");
  }
  for (size_t i = system ? 1 : 0; i < turns.size(); ++i) {
    const ChatRole role = turns[i].role;
    if (role == ChatRole::kSystem) {
      return Refused(i, role, "only the first message may have this role");
    }
    const bool users_turn = (i - (system ? 1 : 0)) % 2 == 0;
    if (alternates_ && (role == ChatRole::kUser) != users_turn) {
      return Refused(i, role,
                     "in the model's template (" + name +
                         ") user and assistant must alternate, beginning with the user");
    }
  }
  if (turns.back().role != ChatRole::kUser) {
    return Refused(turns.size() - 1, turns.back().role, "the last message must be the user's");
  }
  return {};
}

Result<std::vector<ChatPart>> ChatTemplate::Render(std::span<const ChatTurn> turns) const {
  THIMBLE_RETURN_IF_ERROR(CheckOrder(turns));
  Parts parts;
  std::string_view system;
  const bool has_system = turns[0].role == ChatRole::kSystem;
  if (has_system && system_place_ != SystemPlace::kOwnTurn) {
    system = turns[0].content;
    turns = turns.subspan(1);
  }
  if (has_bos_ && family_ != ChatFamily::kLlama2) parts.Markup(bos_);
  // Turns before the first one.
  if (family_ == ChatFamily::kChatml && has_preamble_ && !has_system) {
    parts.Markup("<|im_start|>system\n").Content(preamble_).Markup("<|im_end|>\n");
  }
  if (family_ == ChatFamily::kLlama3 && has_preamble_) {
    parts.Markup("<|start_header_id|>system<|end_header_id|>\n\n").Content(preamble_);
    if (has_system) parts.Content(Trimmed(turns[0].content));
    parts.Markup("<|eot_id|>");
    if (has_system) turns = turns.subspan(1);
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    const ChatTurn& turn = turns[i];
    const bool user = turn.role == ChatRole::kUser;
    const std::string role(ChatRoleName(turn.role));
    switch (family_) {
      case ChatFamily::kChatml:  // <|im_start|>user\n...<|im_end|>\n
        parts.Markup("<|im_start|>" + role + "\n");
        parts.Content(Trimmed(turn.content)).Markup("<|im_end|>\n");
        break;
      case ChatFamily::kLlama3:  // <|start_header_id|>user<|end_header_id|>\n\n...<|eot_id|>
        parts.Markup("<|start_header_id|>" + role + "<|end_header_id|>\n\n");
        parts.Content(Trimmed(turn.content)).Markup("<|eot_id|>");
        break;
      case ChatFamily::kZephyr:  // <|user|>\n...</s>\n
        parts.Markup("<|" + role + "|>\n").Content(turn.content).Markup(eos_ + "\n");
        break;
      case ChatFamily::kGemma:  // <start_of_turn>user\n...<end_of_turn>\n; the assistant: "model"
        parts.Markup(user ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
        if (i == 0 && has_system) parts.Content(system).Content("\n\n");
        parts.Content(Trim(turn.content)).Markup("<end_of_turn>\n");
        break;
      case ChatFamily::kLlama2:  // <s>[INST] <<SYS>>\n...\n<</SYS>>\n\n... [/INST] ... </s>
        if (!user) {
          parts.Markup(" ").Content(Trim(turn.content)).Markup(" " + eos_);
          break;
        }
        parts.Markup(bos_ + "[INST] ");
        if (i == 0 && has_system) {  // joined with the message, then trimmed together
          parts.Markup("<<SYS>>\n").Content(system).Markup("\n<</SYS>>\n\n");
          parts.Content(TrimRight(turn.content));
        } else {
          parts.Content(Trim(turn.content));
        }
        parts.Markup(" [/INST]");
        break;
      case ChatFamily::kMistral: {  // <s>[INST] ... [/INST] ...</s>
        if (!user) {
          parts.Markup(before_reply_).Content(Trimmed(turn.content)).Markup(eos_ + after_reply_);
          break;
        }
        const size_t place = system_place_ == SystemPlace::kLastUser ? turns.size() - 1 : 0;
        parts.Markup(open_);
        if (has_system && i == place) parts.Content(system).Content("\n\n");
        parts.Content(turn.content).Markup(close_);
        break;
      }
    }
  }
  // The beginning of the assistant's turn.
  switch (family_) {
    case ChatFamily::kChatml:
      parts.Markup("<|im_start|>assistant\n");
      break;
    case ChatFamily::kLlama3:
      parts.Markup("<|start_header_id|>assistant<|end_header_id|>\n\n");
      break;
    case ChatFamily::kZephyr:
      parts.Markup("<|assistant|>\n");
      break;
    case ChatFamily::kGemma:
      parts.Markup("<start_of_turn>model\n");
      break;
    case ChatFamily::kLlama2:
    case ChatFamily::kMistral:
      break;
  }
  return std::move(parts).Take();
}

Result<std::vector<TokenId>> ChatTemplate::Encode(std::span<const ChatTurn> turns,
                                                  Tokenizer& tokenizer) const {
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<ChatPart> parts, Render(turns));
  std::vector<TextPart> text;
  text.reserve(parts.size() + 1);
  const bool begins = !bos_.empty() && parts[0].markup && parts[0].text.starts_with(bos_);
  if (tokenizer.adds_bos() && !begins) text.push_back({bos_, true});
  for (const ChatPart& part : parts) text.push_back({part.text, part.markup});
  return tokenizer.EncodeParts(text, false);
}

}  // namespace thimble
