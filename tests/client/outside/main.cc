// outside ADDRESS PROMPT: what a program of somebody else's may do with thimble::client. Its last
// line is "ok".
#include <iostream>
#include <string>
#include <variant>

#include "thimble/client.h"

namespace {

int Fail(const char* what, const thimble::Status& status) {
  std::cerr << what << ": " << status.ToString() << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using thimble::client::Client;
  if (argc != 3) return 2;
  thimble::Result<Client> client = Client::Connect(argv[1]);
  if (!client.ok()) return Fail("connect", client.status());
  const thimble::Result<bool> ready = client->IsReady();
  if (!ready.ok() || !*ready) return Fail("ready", ready.status());

  thimble::client::GenerateOptions options;
  options.max_tokens = 16;
  options.temperature = 0;
  options.ignore_eos = true;
  options.request_id = "outside";
  std::string told;
  uint32_t tokens = 0;
  const auto answer = client->Generate(argv[2], options, [&](const thimble::client::Event& event) {
    if (const auto* token = std::get_if<thimble::client::Token>(&event)) {
      told += token->text;
      ++tokens;
    }
    return true;
  });
  if (!answer.ok()) return Fail("generate", answer.status());
  if (tokens != 16 || answer->generated_tokens != 16 || answer->text.find(told) != 0) {
    std::cerr << tokens << " tokens: " << told << "|" << answer->text << "\n";
    return 1;
  }

  // Ended early, by the callback.
  options.request_id.clear();
  const auto cut = client->Generate(argv[2], options, [](const auto&) { return false; });
  if (cut.ok() || cut.status().code() != thimble::StatusCode::kCancelled) {
    return Fail("cancel", cut.status());
  }
  // What is refused, and what it is called.
  options.top_p = 7;
  const auto refused = client->Generate(argv[2], options);
  if (refused.ok() || refused.status().message().find("top_p") == std::string::npos) {
    return Fail("refuse", refused.status());
  }
  const auto model = client->GetModel();
  if (!model.ok() || model->context_tokens == 0) return Fail("model", model.status());
  const auto ids = client->Tokenize(argv[2]);
  if (!ids.ok() || ids->empty()) return Fail("tokenize", ids.status());
  const auto back = client->Detokenize(*ids);
  if (!back.ok() || back->find(argv[2]) == std::string::npos) return Fail("back", back.status());
  const auto status = client->GetStatus();
  if (!status.ok() || status->generated_tokens_total < 16) return Fail("status", status.status());
  std::cout << answer->text << "\nok\n";
  return 0;
}
