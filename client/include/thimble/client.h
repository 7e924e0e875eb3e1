// Text from thimbled, for C++ programs: one connection, blocking calls, no gRPC in sight.
//
//   find_package(thimble REQUIRED)
//   target_link_libraries(program PRIVATE thimble::client)
//
//   auto client = thimble::client::Client::Connect();
//   if (!client.ok()) { ... client.status().ToString() ... }
//   thimble::client::GenerateOptions options;
//   options.max_tokens = 60;
//   auto answer = client->Generate("Once upon a time", options, [](const auto& event) {
//     if (const auto* token = std::get_if<thimble::client::Token>(&event)) std::cout <<
//     token->text; return true;
//   });
//
// A Client is used by one thread at a time; several of them are independent. Calls end early by a
// std::stop_token, requested from any thread. Nothing here throws. Errors are the daemon's, or
// UNAVAILABLE and NOT_FOUND of the connection. What fields mean, their ranges and defaults are
// documented once, in proto/thimble/v1/thimble.proto; an option that is not set takes the daemon's.
// Memory: gRPC's own, some MiB, and the text.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include "thimble/status.h"

namespace thimble::client {

struct GenerateOptions {
  std::optional<uint32_t> max_tokens;
  std::optional<float> temperature;
  std::optional<uint32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repeat_penalty;
  std::optional<uint32_t> repeat_last_n;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool parse_special = false;  // of Generate's prompt; never of messages
  bool log_probabilities = false;
  bool detach = false;  // goes on when this program goes away

  // The program's own name for this request. With one, a connection that is lost is made again for
  // as long as `reconnect`, counted from the last event, and the call goes on where it was.
  std::string request_id;
  std::chrono::milliseconds reconnect = std::chrono::seconds(60);
};

// What happens to a request, in this order.
struct Queued {
  uint32_t position = 0;  // 1: next
  double estimated_wait_seconds = 0;
};
struct Started {
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
  uint64_t seed = 0;
};
struct PromptProgress {
  uint32_t done = 0;
  uint32_t total = 0;
};
struct Token {
  uint32_t index = 0;
  int32_t id = 0;
  std::string text;  // whole UTF-8 characters; may be empty
  std::optional<float> log_probability;
};
using Event = std::variant<Queued, Started, PromptProgress, Token>;

// Called for every event. False cancels the call.
using OnEvent = std::function<bool(const Event& event)>;

enum class FinishReason : uint8_t { kUnknown, kLength, kEndOfText, kStop, kContext };

struct Answer {
  std::string text;  // all of it: the tokens' texts, and what was held back at the end
  FinishReason reason = FinishReason::kUnknown;
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
  uint32_t generated_tokens = 0;
  double queued_seconds = 0;
  double first_token_seconds = 0;
  double total_seconds = 0;
};

enum class Role : uint8_t { kSystem, kUser, kAssistant };
struct Message {
  Role role = Role::kUser;
  std::string content;
};

// Of the model that is served; never changes while the daemon runs.
struct ModelInfo {
  std::string name;
  std::string architecture;
  uint64_t weight_bytes = 0;
  uint32_t context_tokens = 0;
  uint32_t vocabulary = 0;
  std::string chat_template;  // empty: Chat is refused
};

struct DaemonStatus {
  std::string version;
  bool ready = false;
  std::string not_ready_reason;
  double uptime_seconds = 0;
  uint64_t ceiling_bytes = 0;  // 0: none
  uint64_t memory_current_bytes = 0;
  uint64_t memory_peak_bytes = 0;
  uint64_t oom_kills = 0;
  uint32_t active_requests = 0;
  uint32_t queued_requests = 0;
  uint64_t generated_tokens_total = 0;
  uint64_t flash_bytes_read = 0;
};

class Client {
 public:
  // `address` is what thimbled's --listen is: unix:PATH, 127.0.0.1:PORT or [::1]:PORT. NOT_FOUND
  // where there is no such socket, UNAVAILABLE where nothing answers, PERMISSION_DENIED for one
  // who is not of the socket's group, INVALID_ARGUMENT for the address.
  static Result<Client> Connect(const std::string& address = "unix:/run/thimble/thimble.sock");

  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // The text after `prompt` or `tokens`. CANCELLED where `on_event` or `stop` ended it.
  Result<Answer> Generate(const std::string& prompt, const GenerateOptions& options = {},
                          const OnEvent& on_event = {}, const std::stop_token& stop = {});
  Result<Answer> Generate(const std::vector<int32_t>& tokens, const GenerateOptions& options = {},
                          const OnEvent& on_event = {}, const std::stop_token& stop = {});
  // The assistant's next message. FAILED_PRECONDITION where the model has no chat template.
  Result<Answer> Chat(const std::vector<Message>& messages, const GenerateOptions& options = {},
                      const OnEvent& on_event = {}, const std::stop_token& stop = {});

  Result<std::vector<int32_t>> Tokenize(const std::string& text);
  Result<std::string> Detokenize(const std::vector<int32_t>& tokens);
  Result<ModelInfo> GetModel();
  Result<DaemonStatus> GetStatus();
  // Whether the daemon takes requests, by grpc.health.v1.
  Result<bool> IsReady();

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace thimble::client
