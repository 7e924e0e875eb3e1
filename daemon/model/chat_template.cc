// Recognising a template. chat_render.cc renders.
#include "daemon/model/chat_template.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

namespace thimble {
namespace {

bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}
bool HasAny(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](auto part) { return Has(text, part); });
}

struct Literal {
  std::string text;  // decoded
  size_t end = 0;    // in the template, behind its closing quote
};

// The string literal of the template that begins at `at` with a quote; nothing where it does not
// end.
std::optional<Literal> LiteralAt(std::string_view jinja, size_t at) {
  Literal literal;
  const char quote = jinja[at];
  for (size_t i = at + 1; i < jinja.size(); ++i) {
    if (jinja[i] == quote) {
      literal.end = i + 1;
      return literal;
    }
    if (jinja[i] != '\\' || i + 1 == jinja.size()) {
      literal.text += jinja[i];
      continue;
    }
    const char escaped = jinja[++i];
    literal.text += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
  }
  return std::nullopt;
}

// The literals inside the template's tags, in order.
std::vector<Literal> Literals(std::string_view jinja) {
  std::vector<Literal> literals;
  bool inside = false;
  for (size_t i = 0; i + 1 < jinja.size();) {
    const std::string_view two = jinja.substr(i, 2);
    if (!inside) {
      inside = two == "{{" || two == "{%";
      i += inside ? 2 : 1;
    } else if (two == "}}" || two == "%}") {
      inside = false;
      i += 2;
    } else if (jinja[i] == '\'' || jinja[i] == '"') {
      std::optional<Literal> literal = LiteralAt(jinja, i);
      if (!literal) break;
      i = literal->end;
      literals.push_back(std::move(*literal));
    } else {
      ++i;
    }
  }
  return literals;
}

// The first literal that has `part` in it.
std::optional<std::string> LiteralWith(const std::vector<Literal>& literals,
                                       std::string_view part) {
  for (const Literal& literal : literals) {
    if (Has(literal.text, part)) return literal.text;
  }
  return std::nullopt;
}

std::string WithoutSpaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' && c != '\n') out += c;
  }
  return out;
}

struct Recognised {
  ChatFamily family;
  std::string_view end_of_turn;  // empty: EOS
};

// By the markers that only this family's templates have. Relatives with other formats (Phi's
// <|im_sep|> and <|end|>, Mistral's [SYSTEM_PROMPT]) are not taken for them.
std::optional<Recognised> Recognise(std::string_view jinja) {
  if (Has(jinja, "<|im_start|>") && Has(jinja, "<|im_end|>") && !Has(jinja, "<|im_sep|>")) {
    return Recognised{ChatFamily::kChatml, "<|im_end|>"};
  }
  if (Has(jinja, "<|start_header_id|>") && Has(jinja, "<|eot_id|>")) {
    return Recognised{ChatFamily::kLlama3, "<|eot_id|>"};
  }
  if (Has(jinja, "<start_of_turn>") && Has(jinja, "<end_of_turn>")) {
    return Recognised{ChatFamily::kGemma, "<end_of_turn>"};
  }
  if (Has(jinja, "[INST]") && Has(jinja, "[/INST]") && !Has(jinja, "[SYSTEM_PROMPT]")) {
    return Recognised{Has(jinja, "<<SYS>>") ? ChatFamily::kLlama2 : ChatFamily::kMistral, ""};
  }
  // Zephyr's user turn ends with EOS (Phi's with <|end|>, OLMo's with a line's end).
  const std::string dense = WithoutSpaces(jinja);
  if (HasAny(dense, {"'<|user|>\\n'+message['content']+eos_token",
                     "'<|user|>'+message['content']+eos_token",
                     "\"<|user|>\\n\"+message[\"content\"]+eos_token"}) &&
      Has(jinja, "<|assistant|>")) {
    return Recognised{ChatFamily::kZephyr, ""};
  }
  return std::nullopt;
}

// A template's beginning, for an error: 80 printable characters.
std::string Beginning(std::string_view jinja) {
  std::string text;
  for (const char c : jinja.substr(0, 80)) text += c >= ' ' && c < 0x7f ? c : ' ';
  return text + (jinja.size() > 80 ? "..." : "");
}

}  // namespace

std::string_view ChatFamilyName(ChatFamily family) {
  constexpr std::array<std::string_view, 6> kNames = {"chatml", "llama-2", "llama-3",
                                                      "zephyr", "gemma",   "mistral"};
  return kNames[static_cast<size_t>(family)];
}

std::string_view ChatRoleName(ChatRole role) {
  constexpr std::array<std::string_view, 3> kNames = {"system", "user", "assistant"};
  return kNames[static_cast<size_t>(role)];
}

Result<ChatTemplate> ChatTemplate::Parse(std::string_view jinja, std::string bos, std::string eos) {
  const std::optional<Recognised> found = Recognise(jinja);
  if (!found) {
    return FailedPreconditionError(
        "the model's chat template is of none of the families chatml, llama-2, llama-3, zephyr, "
        "gemma, mistral; it has " +
        std::to_string(jinja.size()) + " bytes and begins with \"" + Beginning(jinja) + "\"");
  }
  ChatTemplate chat;
  chat.family_ = found->family;
  chat.bos_ = std::move(bos);
  chat.eos_ = std::move(eos);
  chat.end_of_turn_ = found->end_of_turn.empty() ? chat.eos_ : found->end_of_turn;
  chat.has_bos_ = Has(jinja, "bos_token");
  switch (chat.family_) {
    case ChatFamily::kChatml:
      chat.ReadChatml(jinja);
      break;
    case ChatFamily::kLlama2:
      chat.alternates_ = true;
      chat.system_place_ = SystemPlace::kFirstUser;
      break;
    case ChatFamily::kLlama3:
      chat.ReadLlama3(jinja);
      break;
    case ChatFamily::kZephyr:
      break;
    case ChatFamily::kGemma:
      chat.alternates_ = true;
      // Gemma 3 puts the system message before the first one of the user; earlier ones refuse it.
      chat.system_place_ =
          Has(jinja, "first_user_prefix") ? SystemPlace::kFirstUser : SystemPlace::kNone;
      break;
    case ChatFamily::kMistral:
      chat.ReadMistral(jinja);
      break;
  }
  return chat;
}

// Some models' templates begin with a system message of their own where the conversation has none
// (SmolLM2, Qwen2): it is a literal, whole.
void ChatTemplate::ReadChatml(std::string_view jinja) {
  trims_ = HasAny(WithoutSpaces(jinja), {"['content']|trim", "[\"content\"]|trim", ".content|trim",
                                         ".strip()+'<|im_end|>"});
  constexpr std::string_view kBegin = "<|im_start|>system\n";
  constexpr std::string_view kEnd = "<|im_end|>";
  for (const Literal& literal : Literals(jinja)) {
    const size_t end = literal.text.find(kEnd);
    if (!literal.text.starts_with(kBegin) || end == std::string::npos) continue;
    has_preamble_ = true;
    preamble_ = literal.text.substr(kBegin.size(), end - kBegin.size());
    return;
  }
}

// Llama 3.1 and later put two dates before every system message. The day is the template's own
// fallback, never today: the same conversation is the same text tomorrow.
void ChatTemplate::ReadLlama3(std::string_view jinja) {
  trims_ = Has(jinja, "trim");
  constexpr std::string_view kKnowledge = "Cutting Knowledge Date: December 2023\n";
  const std::vector<Literal> literals = Literals(jinja);
  if (!LiteralWith(literals, kKnowledge)) return;
  has_preamble_ = true;
  std::string day = "26 Jul 2024";
  for (size_t at = jinja.find("date_string = "); at != std::string_view::npos;
       at = jinja.find("date_string = ", at + 1)) {
    const size_t begin = at + std::string_view("date_string = ").size();
    if (begin >= jinja.size() || (jinja[begin] != '"' && jinja[begin] != '\'')) continue;
    if (const std::optional<Literal> literal = LiteralAt(jinja, begin)) day = literal->text;
  }
  preamble_ = std::string(kKnowledge) + "Today Date: " + day + "\n\n";
}

// Mistral's versions differ in the spaces around [INST] and [/INST], in the place of the system
// message, and in what surrounds a reply.
void ChatTemplate::ReadMistral(std::string_view jinja) {
  alternates_ = true;
  const std::vector<Literal> literals = Literals(jinja);
  open_ = LiteralWith(literals, "[INST]").value_or("[INST] ");
  close_ = LiteralWith(literals, "[/INST]").value_or(" [/INST]");
  const std::string dense = WithoutSpaces(jinja);
  trims_ = HasAny(dense, {"['content']|trim", "[\"content\"]|trim"});
  if (HasAny(jinja, {"' ' + message[", "\" \" + message["})) before_reply_ = " ";
  if (HasAny(jinja, {"eos_token + ' '", "eos_token+' '", "eos_token + \" \""})) after_reply_ = " ";
  if (!Has(jinja, "system_message")) {
    system_place_ = SystemPlace::kNone;
  } else {
    system_place_ = Has(jinja, "loop.last and system_message") ? SystemPlace::kLastUser
                                                               : SystemPlace::kFirstUser;
  }
}

Result<ChatTemplate> ChatTemplate::Open(const Model& model, Tokenizer& tokenizer) {
  if (!model.gguf.metadata.contains("tokenizer.chat_template")) {
    return FailedPreconditionError(
        "the model's file has no chat template (tokenizer.chat_template): it was not made for "
        "conversations");
  }
  THIMBLE_ASSIGN_OR_RETURN(const std::string jinja,
                           model.gguf.GetString("tokenizer.chat_template"));
  const auto text_of = [&](std::optional<TokenId> id) -> Result<std::string> {
    if (!id) return std::string();
    return tokenizer.TokenBytes(*id, true);
  };
  THIMBLE_ASSIGN_OR_RETURN(std::string bos, text_of(tokenizer.bos()));
  THIMBLE_ASSIGN_OR_RETURN(std::string eos, text_of(tokenizer.eos()));
  THIMBLE_ASSIGN_OR_RETURN(ChatTemplate chat, Parse(jinja, std::move(bos), std::move(eos)));
  const EncodeOptions as_markup = {.add_special = false, .parse_special = true};
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<TokenId> end,
                           tokenizer.Encode(chat.end_of_turn_, as_markup));
  const std::vector<TokenId>& ends = tokenizer.end_tokens();
  if (end.size() != 1 || std::find(ends.begin(), ends.end(), end[0]) == ends.end()) {
    return FailedPreconditionError(
        "the model's chat template (" + std::string(ChatFamilyName(chat.family_)) +
        ") ends turns with \"" + chat.end_of_turn_ + "\", which is no end token of its vocabulary");
  }
  return chat;
}

}  // namespace thimble
