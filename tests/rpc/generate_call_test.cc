#include "daemon/rpc/generate_call.h"

#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "client/client.h"
#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

v1::GenerateRequest Request(uint32_t max_tokens = 3) {
  v1::GenerateRequest request;
  request.set_prompt("Once");
  request.set_max_tokens(max_tokens);
  return request;
}

Client Connected(const FakeDaemon& daemon) {
  Result<Client> client = Client::Connect(daemon.address());
  EXPECT_TRUE(client.ok()) << client.status().ToString();
  return std::move(client).value();
}

Status Collect(const FakeDaemon& daemon, const v1::GenerateRequest& request,
               std::vector<v1::GenerateEvent>* events) {
  Client client = Connected(daemon);
  grpc::ClientContext context;
  return client.Generate(request, context, [events](const v1::GenerateEvent& event) {
    events->push_back(event);
    return true;
  });
}

TEST(GenerateCall, StreamsEventsInOrder) {
  FakeDaemon daemon;
  daemon.scheduler.tail = "end";
  daemon.Start();
  std::vector<v1::GenerateEvent> events;
  v1::GenerateRequest request = Request();
  request.mutable_sampling()->set_seed(42);
  request.set_log_probabilities(true);
  const Status status = Collect(daemon, request, &events);
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_EQ(events.size(), 7);
  EXPECT_EQ(events[0].queued().position(), 1);
  EXPECT_EQ(events[1].started().prompt_tokens(), 4);
  EXPECT_EQ(events[1].started().seed(), 42);
  EXPECT_EQ(events[2].prompt_progress().total(), 4);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(events[3 + i].token().index(), i);
    EXPECT_EQ(events[3 + i].token().text(), "x");
    EXPECT_EQ(events[3 + i].token().raw(), "");
    EXPECT_FLOAT_EQ(events[3 + i].token().log_probability(), -0.5F);
  }
  EXPECT_EQ(events[6].done().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(events[6].done().generated_tokens(), 3);
  EXPECT_EQ(events[6].done().tail(), "end");
}

TEST(GenerateCall, BytesThatAreNotUtf8ArriveAsRawBesideTheReplacement) {
  FakeDaemon daemon;
  daemon.scheduler.text = "a\xff";
  daemon.Start();
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Collect(daemon, Request(1), &events).ok());
  ASSERT_EQ(events.size(), 5);
  EXPECT_EQ(events[3].token().text(), "a\xef\xbf\xbd");
  EXPECT_EQ(events[3].token().raw(), "a\xff");
  EXPECT_FALSE(events[3].token().has_log_probability()) << "nobody asked for it";
}

TEST(GenerateCall, PassesFieldsToTheScheduler) {
  FakeDaemon daemon;
  daemon.Start();
  v1::GenerateRequest request = Request(2);
  request.set_request_id("name");
  request.add_stop("END");
  request.set_ignore_eos(true);
  request.set_detach(true);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_top_k(7);
  request.mutable_sampling()->set_top_p(0.5F);
  request.mutable_sampling()->set_min_p(0.25F);
  request.mutable_sampling()->set_repeat_penalty(1.5F);
  request.mutable_sampling()->set_repeat_last_n(9);
  request.mutable_sampling()->set_presence_penalty(-1);
  request.mutable_sampling()->set_frequency_penalty(2);
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Collect(daemon, request, &events).ok());
  ASSERT_TRUE(Collect(daemon, request, &events).ok());
  request.clear_request_id();
  ASSERT_TRUE(Collect(daemon, request, &events).ok());
  ASSERT_TRUE(Collect(daemon, request, &events).ok());
  ASSERT_TRUE(daemon.Stop().ok());
  const std::vector<GenerationRequest>& seen = daemon.scheduler.seen;
  ASSERT_EQ(seen.size(), 4);
  EXPECT_EQ(seen[0].name, "name");
  EXPECT_EQ(seen[0].prompt, (std::vector<TokenId>{'O', 'n', 'c', 'e'}));
  EXPECT_EQ(seen[0].max_tokens, 2);
  EXPECT_EQ(seen[0].stop, std::vector<std::string>{"END"});
  EXPECT_TRUE(seen[0].ignore_eos);
  EXPECT_TRUE(seen[0].detach);
  EXPECT_EQ(seen[0].sampling.temperature, 0);
  EXPECT_EQ(seen[0].sampling.top_k, 7);
  EXPECT_EQ(seen[0].sampling.top_p, 0.5F);
  EXPECT_EQ(seen[0].sampling.min_p, 0.25F);
  EXPECT_EQ(seen[0].sampling.repeat_penalty, 1.5F);
  EXPECT_EQ(seen[0].sampling.repeat_last_n, 9);
  EXPECT_EQ(seen[0].sampling.presence_penalty, -1);
  EXPECT_EQ(seen[0].sampling.frequency_penalty, 2);
  // Without a seed: the same again for the same name, else a new one each time.
  EXPECT_EQ(seen[0].sampling.seed, seen[1].sampling.seed);
  EXPECT_NE(seen[2].sampling.seed, seen[3].sampling.seed);
}

TEST(GenerateCall, EveryBadFieldIsNamedWithItsRange) {
  FakeDaemon daemon;
  daemon.Start();
  struct Case {
    void (*spoil)(v1::GenerateRequest& request);
    std::string message;
    StatusCode code = StatusCode::kInvalidArgument;
  };
  const std::vector<Case> cases = {
      {[](v1::GenerateRequest& r) { r.clear_prompt(); }, "prompt or tokens: one of them"},
      {[](v1::GenerateRequest& r) { r.set_prompt(""); }, "prompt: it gives no tokens"},
      {[](v1::GenerateRequest& r) { r.set_prompt(std::string(64 * 512 + 1, 'a')); },
       "prompt of 32769 bytes: at most 32768", StatusCode::kOutOfRange},
      {[](v1::GenerateRequest& r) { r.mutable_tokens(); }, "tokens: at least one id"},
      {[](v1::GenerateRequest& r) { r.mutable_tokens()->add_ids(256); },
       "tokens[0] 256: from 0 to 255"},
      {[](v1::GenerateRequest& r) { r.mutable_tokens()->add_ids(-1); },
       "tokens[0] -1: from 0 to 255"},
      {[](v1::GenerateRequest& r) { r.set_max_tokens(0); }, "max_tokens 0: from 1 to 512"},
      {[](v1::GenerateRequest& r) { r.set_max_tokens(513); }, "max_tokens 513: from 1 to 512"},
      {[](v1::GenerateRequest& r) { r.add_stop(""); }, "stop[0] of 0 bytes: from 1 to 256"},
      {[](v1::GenerateRequest& r) { r.add_stop(std::string(257, 'a')); }, "of 257 bytes"},
      {[](v1::GenerateRequest& r) {
         for (int i = 0; i < 9; ++i) r.add_stop("a");
       },
       "stop with 9 strings: at most 8"},
      {[](v1::GenerateRequest& r) { r.set_request_id(std::string(129, 'a')); },
       "request_id of 129 bytes: at most 128"},
      {[](v1::GenerateRequest& r) { r.mutable_sampling()->set_temperature(-1); }, "temperature"},
  };
  for (const Case& bad : cases) {
    v1::GenerateRequest request = Request();
    bad.spoil(request);
    std::vector<v1::GenerateEvent> events;
    const Status status = Collect(daemon, request, &events);
    EXPECT_EQ(status.code(), bad.code) << bad.message << ": " << status.ToString();
    EXPECT_NE(status.message().find(bad.message), std::string::npos)
        << bad.message << ": " << status.ToString();
    EXPECT_TRUE(events.empty()) << bad.message;
  }
  std::vector<v1::GenerateEvent> events;
  EXPECT_TRUE(Collect(daemon, Request(), &events).ok()) << "the daemon goes on";
}

// The client's own library refuses to send it too, so the bytes are written by hand.
Status SendBytes(const FakeDaemon& daemon, const std::string& method, const std::string& bytes) {
  grpc::GenericStub stub(grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const auto call = stub.PrepareUnaryCall(&context, "/thimble.v1.Thimble/" + method,
                                          grpc::ByteBuffer(&slice, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  EXPECT_TRUE(queue.Next(&tag, &ok));
  return {static_cast<StatusCode>(status.error_code()), status.error_message()};
}

TEST(GenerateCall, AStringThatIsNotUtf8IsNamed) {
  FakeDaemon daemon;
  daemon.Start();
  struct Case {
    std::string method, bytes, message;
  };
  const std::vector<Case> cases = {
      {"Generate",
       std::string("\x0a\x04"
                   "ab\xff"
                   "c",
                   6),
       "prompt: byte 2 (0xff) is not UTF-8; it must be"},
      {"Generate",
       std::string("\x0a\x01"
                   "a\x2a\x01"
                   "x\x2a\x02"
                   "\xc3\x28",
                   10),
       "stop[1]: byte 0 (0xc3) is not UTF-8; it must be"},
      {"Generate", std::string("\x42\x01\x80", 3), "request_id: byte 0 (0x80)"},
      {"Chat",
       std::string("\x0a\x08\x0a\x00\x0a\x04\x12\x02"
                   "a\xed",
                   10),
       "conversation.messages[1].content: byte 1 (0xed)"},
      {"Tokenize", std::string("\x0a\x01\xfe", 3), "text: byte 0 (0xfe)"},
      {"Generate",
       std::string("\x0a\x7f"
                   "a",
                   3),
       "3 bytes are no message"},
      {"GetStatus", std::string("\xff\xff", 2), "2 bytes are no message"}};
  for (const Case& bad : cases) {
    const Status status = SendBytes(daemon, bad.method, bad.bytes);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
    EXPECT_NE(status.message().find(bad.message), std::string::npos) << status.ToString();
  }
  const Status unknown = SendBytes(daemon, "Sing", "");
  EXPECT_EQ(unknown.code(), StatusCode::kUnimplemented);
  EXPECT_EQ(unknown.message(), "there is no method /thimble.v1.Thimble/Sing");
}

v1::ChatRequest ChatOf(const std::vector<std::pair<v1::Role, std::string>>& messages) {
  v1::ChatRequest request;
  request.set_max_tokens(2);
  for (const auto& [role, content] : messages) {
    v1::ChatMessage& message = *request.mutable_conversation()->add_messages();
    message.set_role(role);
    message.set_content(content);
  }
  return request;
}

Status Chat(const FakeDaemon& daemon, const v1::ChatRequest& request) {
  const auto stub = v1::Thimble::NewStub(
      grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto reader = stub->Chat(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();
  return {static_cast<StatusCode>(status.error_code()), status.error_message()};
}

TEST(ChatCall, AppliesTheModelsTemplate) {
  FakeDaemon daemon;
  daemon.model.gguf.metadata["tokenizer.chat_template"] =
      std::string("{{ '<|user|>\\n' + message['content'] + eos_token }}<|assistant|>");
  daemon.Start();
  const Status status = Chat(daemon, ChatOf({{v1::ROLE_SYSTEM, "Short."}, {v1::ROLE_USER, "Hi"}}));
  EXPECT_EQ(status.code(), StatusCode::kOk) << status.ToString();
  struct Case {
    v1::ChatRequest request;
    std::string message;
    StatusCode code = StatusCode::kInvalidArgument;
  };
  v1::ChatRequest no_tokens = ChatOf({{v1::ROLE_USER, "Hi"}});
  no_tokens.set_max_tokens(0);
  for (const Case& bad : std::vector<Case>{
           {v1::ChatRequest(), "conversation: it must be set"},
           {ChatOf(std::vector<std::pair<v1::Role, std::string>>(257, {v1::ROLE_USER, "a"})),
            "messages with 257 of them: at most 256"},
           {ChatOf({{v1::ROLE_UNSPECIFIED, "a"}}), "messages[0].role 0: 1 (system)"},
           {ChatOf({{static_cast<v1::Role>(9), "a"}}), "messages[0].role 9: 1 (system)"},
           {ChatOf({{v1::ROLE_ASSISTANT, "a"}}), "messages[0].role assistant: the last message"},
           {no_tokens, "max_tokens 0: from 1 to 512"},
           {ChatOf({{v1::ROLE_USER, std::string(64 * 512 + 1, 'a')}}),
            "messages of 32769 bytes: at most 32768", StatusCode::kOutOfRange}}) {
    const Status refused = Chat(daemon, bad.request);
    EXPECT_EQ(refused.code(), bad.code) << bad.message << ": " << refused.ToString();
    EXPECT_NE(refused.message().find(bad.message), std::string::npos)
        << bad.message << ": " << refused.ToString();
  }
  ASSERT_TRUE(daemon.Stop().ok());
  ASSERT_EQ(daemon.scheduler.seen.size(), 1);
  const std::vector<TokenId>& prompt = daemon.scheduler.seen[0].prompt;
  EXPECT_EQ(std::string(prompt.begin(), prompt.end()),
            "<|system|>\nShort.\x04\n<|user|>\nHi\x04\n<|assistant|>\n");
}

TEST(ChatCall, AModelWithoutATemplateSaysSo) {
  FakeDaemon daemon;
  daemon.Start();
  const Status status = Chat(daemon, ChatOf({{v1::ROLE_USER, "Hi"}}));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
  EXPECT_NE(status.message().find("tokenizer.chat_template"), std::string::npos);
}

TEST(GenerateCall, TheSchedulersRefusalIsPassedOn) {
  FakeDaemon daemon;
  daemon.scheduler.max_requests = 0;
  daemon.scheduler.wait_seconds = 2.5;
  daemon.Start();
  std::vector<v1::GenerateEvent> events;
  const Status status = Collect(daemon, Request(), &events);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "the queue is full: 0 requests wait; try again in 2.5 s");
}

TEST(GenerateCall, MoreCallsThanTheBoundAreRefused) {
  FakeDaemon daemon;
  daemon.options.max_streams = 2;
  daemon.scheduler.paused = true;
  daemon.Start();
  std::vector<std::thread> threads;
  grpc::ClientContext contexts[2];
  for (grpc::ClientContext& context : contexts) {
    threads.emplace_back([&daemon, &context] {
      Client client = Connected(daemon);
      (void)client.Generate(Request(), context, [](const v1::GenerateEvent&) { return true; });
    });
  }
  ASSERT_TRUE(WaitUntil([&] { return daemon.scheduler.live == 2; }));
  std::vector<v1::GenerateEvent> events;
  const Status status = Collect(daemon, Request(), &events);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("2 calls are open"), std::string::npos) << status.ToString();
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  for (std::thread& thread : threads) thread.join();
}

TEST(GenerateCall, ACancelReachesTheSchedulerAndLeavesNothing) {
  FakeDaemon daemon;
  daemon.Start();
  Client client = Connected(daemon);
  grpc::ClientContext context;
  uint32_t tokens = 0;
  const Status status = client.Generate(Request(512), context, [&](const v1::GenerateEvent& event) {
    tokens += event.has_token() ? 1 : 0;
    return tokens < 3;
  });
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  // All 512 may have been computed before the cancel arrived; then nothing was left to cancel.
  EXPECT_TRUE(WaitUntil([&] { return daemon.scheduler.live == 0; }));
  EXPECT_TRUE(daemon.Stop().ok());
}

TEST(GenerateCall, AWaitingClientThatDisconnectsIsNoticed) {
  FakeDaemon daemon;
  daemon.scheduler.paused = true;
  daemon.Start();
  grpc::ClientContext context;
  std::thread waiting([&] {
    Client client = Connected(daemon);
    (void)client.Generate(Request(), context, [](const v1::GenerateEvent&) { return true; });
  });  // the connection goes with the thread
  ASSERT_TRUE(WaitUntil([&] { return daemon.scheduler.live == 1; }));
  context.TryCancel();
  waiting.join();
  EXPECT_TRUE(WaitUntil([&] { return daemon.scheduler.gone == 1; }));
  EXPECT_EQ(daemon.scheduler.live, 0);
}

TEST(GenerateCall, ADeadlineCancels) {
  FakeDaemon daemon;
  daemon.scheduler.paused = true;
  daemon.Start();
  Client client = Connected(daemon);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  const Status status =
      client.Generate(Request(), context, [](const v1::GenerateEvent&) { return true; });
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(WaitUntil([&] { return daemon.scheduler.gone == 1; }));
}

TEST(GenerateCall, ASlowReaderHoldsUpItsOwnRequestOnly) {
  FakeDaemon daemon;
  daemon.scheduler.text = std::string(16384, 'x');  // 512 of them are 8 MiB
  daemon.Start();
  // A client widens its window as it sees fit, up to all of that: this one keeps it at 64 KiB.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65536);
  const auto stub = v1::Thimble::NewStub(
      grpc::CreateCustomChannel(daemon.address(), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  const auto slow = stub->Generate(&context, Request(512));
  v1::GenerateEvent event;
  ASSERT_TRUE(slow->Read(&event));
  uint32_t received = event.has_token() ? 1 : 0;
  // It stalls well before the end: flow control, the socket's buffers and 16 events are all that is
  // buffered for it.
  uint64_t before = 0;
  ASSERT_TRUE(WaitUntil([&] {
    before = daemon.scheduler.tokens;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return before > 0 && daemon.scheduler.tokens == before;
  }));
  EXPECT_LT(before, 100);
  std::vector<v1::GenerateEvent> events;
  EXPECT_TRUE(Collect(daemon, Request(20), &events).ok()) << "others go on";
  while (slow->Read(&event)) received += event.has_token() ? 1 : 0;
  const grpc::Status status = slow->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(received, 512) << "and nothing is lost";
}

}  // namespace
}  // namespace thimble
