#include "client/conversation.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <fstream>

#include "client/json_line.h"
#include "client/utf8_check.h"

namespace thimble {
namespace {

// What a template puts around a message: "<|im_start|>assistant\n", "<|im_end|>\n".
constexpr size_t kFrameBytes = 16;

std::string_view RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return "system";
    case v1::ROLE_ASSISTANT:
      return "assistant";
    default:
      return "user";
  }
}

Result<Conversation::Message> ParseMessage(const std::string& line) {
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(line, error);
  const boost::json::object* object = error ? nullptr : value.if_object();
  const boost::json::value* role = object == nullptr ? nullptr : object->if_contains("role");
  const boost::json::value* content = object == nullptr ? nullptr : object->if_contains("content");
  if (role == nullptr || content == nullptr || !role->is_string() || !content->is_string()) {
    return InvalidArgumentError(R"(expected {"role":"...","content":"..."})");
  }
  for (const v1::Role known : {v1::ROLE_SYSTEM, v1::ROLE_USER, v1::ROLE_ASSISTANT}) {
    if (std::string_view(role->get_string()) == RoleName(known)) {
      return Conversation::Message{known, std::string(content->get_string())};
    }
  }
  return InvalidArgumentError("the role \"" + std::string(role->get_string()) +
                              "\" is none of system, user, assistant");
}

}  // namespace

void Conversation::SetSystem(const std::string& text) {
  if (!messages_.empty() && messages_.front().role == v1::ROLE_SYSTEM) {
    messages_.erase(messages_.begin());
  }
  if (!text.empty()) messages_.insert(messages_.begin(), Message{v1::ROLE_SYSTEM, text});
}

std::string Conversation::system() const {
  if (messages_.empty() || messages_.front().role != v1::ROLE_SYSTEM) return {};
  return messages_.front().content;
}

bool Conversation::DropLast(v1::Role role) {
  if (messages_.empty() || messages_.back().role != role) return false;
  messages_.pop_back();
  return true;
}

void Conversation::Clear() {
  const std::string text = system();
  messages_.clear();
  SetSystem(text);
}

size_t Conversation::DropOldest() {
  const size_t begin = system().empty() ? 0 : 1;
  size_t end = begin + 1;
  while (end < messages_.size() && messages_[end].role != v1::ROLE_USER) ++end;
  if (end >= messages_.size()) return 0;  // what is left is the question itself
  messages_.erase(messages_.begin() + static_cast<std::ptrdiff_t>(begin),
                  messages_.begin() + static_cast<std::ptrdiff_t>(end));
  return end - begin;
}

size_t Conversation::bytes() const {
  size_t sum = 0;
  for (const Message& message : messages_) sum += message.content.size() + kFrameBytes;
  return sum;
}

uint64_t Conversation::EstimatedTokens() const {
  return static_cast<uint64_t>(static_cast<double>(bytes()) * tokens_per_byte_) + 1;
}

void Conversation::Counted(uint32_t tokens) {
  if (tokens > 0 && bytes() > 0) tokens_per_byte_ = tokens / static_cast<double>(bytes());
}

size_t Conversation::Fit(uint32_t context_tokens, uint32_t reserve) {
  if (EstimatedTokens() + reserve <= context_tokens) return 0;
  size_t dropped = 0;
  while (EstimatedTokens() > context_tokens / 2) {
    const size_t n = DropOldest();
    if (n == 0) break;
    dropped += n;
  }
  return dropped;
}

void Conversation::Fill(v1::Conversation* out) const {
  for (const Message& message : messages_) {
    v1::ChatMessage& added = *out->add_messages();
    added.set_role(message.role);
    added.set_content(message.content);
  }
}

Status Conversation::Save(const std::string& path) const {
  std::ofstream file(path, std::ios::trunc);
  for (const Message& message : messages_) {
    file << JsonLine().Add("role", RoleName(message.role)).Add("content", message.content).str()
         << '\n';
  }
  file.flush();
  if (!file) return ErrnoError(errno != 0 ? errno : EIO, "write " + path);
  return {};
}

Result<Conversation> Conversation::Load(const std::string& path) {
  std::ifstream file(path);
  if (!file) return ErrnoError(errno != 0 ? errno : EIO, "read " + path);
  Conversation conversation;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    Result<Message> message = ParseMessage(line);
    const std::string where = path + ", line " + std::to_string(number);
    if (!message.ok()) {
      return InvalidArgumentError("read " + where + ": " + message.status().message());
    }
    THIMBLE_RETURN_IF_ERROR(CheckUtf8(where, message->content));
    conversation.messages_.push_back(std::move(message).value());
  }
  if (file.bad()) return ErrnoError(errno != 0 ? errno : EIO, "read " + path);
  return conversation;
}

}  // namespace thimble
