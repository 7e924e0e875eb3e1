// The messages of `thimble chat`, and what is left out of them when the context is full.
// Called by: chat. Memory: the messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "storage/base/status.h"
#include "thimble/v1/thimble.pb.h"

namespace thimble {

class Conversation {
 public:
  struct Message {
    v1::Role role;
    std::string content;
  };

  // The first message; an empty one is none.
  void SetSystem(const std::string& text);
  [[nodiscard]] std::string system() const;

  void Add(v1::Role role, std::string content) { messages_.push_back({role, std::move(content)}); }
  // Removes the last message if it is of that role; whether it was.
  bool DropLast(v1::Role role);
  // All but the system's message.
  void Clear();

  // Leaves the oldest exchange out (the user's message and its answer), never the system's message
  // and never the last one: the number of messages, 0 where nothing may go.
  size_t DropOldest();

  // The daemon has counted: the messages of now, and the answer added since, are that many tokens.
  void Counted(uint32_t tokens);
  // Before a request: where the context would have no room for `reserve` tokens of answer, the
  // oldest exchanges go until half of it is free. Half, because each time the daemon has to read
  // the whole prompt again, whose beginning is another one. The number of messages left out.
  size_t Fit(uint32_t context_tokens, uint32_t reserve);

  [[nodiscard]] const std::vector<Message>& messages() const { return messages_; }
  void Fill(v1::Conversation* out) const;

  // One JSON object a line: {"role":"user","content":"..."}.
  [[nodiscard]] Status Save(const std::string& path) const;
  static Result<Conversation> Load(const std::string& path);

 private:
  [[nodiscard]] size_t bytes() const;
  // From what was counted; before that, 3 bytes a token, which is more tokens than text has.
  [[nodiscard]] uint64_t EstimatedTokens() const;

  std::vector<Message> messages_;
  double tokens_per_byte_ = 1.0 / 3;
};

}  // namespace thimble
