// A scheduler and a tokenizer without a model, and a daemon made of them: the event loop and the
// server are the real ones, on a thread of their own, over a real Unix socket in a temporary
// directory.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <filesystem>
#include <future>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/event_loop.h"
#include "daemon/rpc/server.h"

namespace thimble {

// One token a byte; ids 0 to 255. 4, the end of turn of its conversations, ends a generation.
class FakeTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kEos = 4;
  Result<std::vector<TokenId>> Encode(std::string_view text,
                                      const EncodeOptions& /*options*/) override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  Result<std::vector<TokenId>> EncodeParts(std::span<const TextPart> parts,
                                           bool /*add_special*/) override {
    std::string text;
    for (const TextPart& part : parts) text += part.text;
    return Encode(text, {});
  }
  Result<std::string> TokenBytes(TokenId id, bool /*show_special*/) override {
    return std::string(1, static_cast<char>(id));
  }
  Result<std::string> Decode(const std::vector<TokenId>& ids) override {
    return std::string(ids.begin(), ids.end());
  }
  [[nodiscard]] std::optional<TokenId> bos() const override { return std::nullopt; }
  [[nodiscard]] std::optional<TokenId> eos() const override { return kEos; }
  [[nodiscard]] bool adds_bos() const override { return false; }
  [[nodiscard]] const std::vector<TokenId>& end_tokens() const override { return end_tokens_; }
  [[nodiscard]] uint32_t vocab_size() const override { return 256; }

 private:
  std::vector<TokenId> end_tokens_ = {kEos};
};

// Gives every request, in turn, one token a step: `text` of it, as often as it asked for. The
// counters may be read by the test's thread, the rest is the loop's.
class FakeScheduler final : public Scheduler {
 public:
  std::string text = "x";
  std::string tail;
  uint32_t max_requests = 1000;
  bool paused = false;
  Status step_error;
  std::atomic<bool> frozen = false;     // has work, and does none
  std::vector<GenerationRequest> seen;  // read when the daemon has stopped
  std::atomic<uint32_t> live = 0;
  std::atomic<uint32_t> gone = 0;
  std::atomic<uint64_t> tokens = 0;

  Result<uint64_t> Submit(GenerationRequest request, RequestSink* sink) override {
    if (requests_.size() >= max_requests) {
      return ResourceExhaustedError("the queue is full: " + std::to_string(max_requests) +
                                    " requests wait");
    }
    seen.push_back(request);
    requests_.push_back({++last_, std::move(request), sink, 0});
    ++live;
    sink->OnQueued(static_cast<uint32_t>(requests_.size()), 0);
    return last_;
  }
  void ClientGone(uint64_t number) override {
    ++gone;
    Cancel(number);
  }
  void Cancel(uint64_t number) override {
    for (auto it = requests_.begin(); it != requests_.end(); ++it) {
      if (it->number != number) continue;
      End(it, FinishReason::kCancelled, CancelledError("cancelled"));
      return;
    }
  }
  void Suspend(const std::string& why) override {
    while (!requests_.empty()) {
      End(requests_.begin(), FinishReason::kError, UnavailableError(why));
    }
  }
  [[nodiscard]] bool HasWork() const override {
    if (paused) return false;
    for (const Request& request : requests_) {
      if (request.sink->CanAccept()) return true;
    }
    return false;
  }
  Status Step() override {
    if (!step_error.ok()) return step_error;
    if (frozen) return {};
    for (auto it = requests_.begin(); it != requests_.end();) {
      auto& request = *it++;
      if (!request.sink->CanAccept()) continue;
      const auto prompt = static_cast<uint32_t>(request.request.prompt.size());
      if (request.emitted == 0) {
        request.sink->OnStarted(prompt, 0);
        request.sink->OnPromptProgress(prompt, prompt);
      }
      request.sink->OnToken(request.emitted++, 7, text, -0.5F);
      ++tokens;
      if (request.emitted == request.request.max_tokens) {
        if (!tail.empty()) request.sink->OnTail(tail);
        End(std::prev(it), FinishReason::kLength, {});
      }
    }
    return {};
  }
  double wait_seconds = 0;
  [[nodiscard]] double EstimatedWaitSeconds() override { return wait_seconds; }
  [[nodiscard]] double RetryAfterSeconds() override { return wait_seconds; }
  [[nodiscard]] SchedulerStatus status() const override {
    SchedulerStatus status;
    status.active = static_cast<uint32_t>(requests_.size());
    status.requests_total = last_;
    return status;
  }

 private:
  struct Request {
    uint64_t number;
    GenerationRequest request;
    RequestSink* sink;
    uint32_t emitted;
  };
  void End(std::list<Request>::iterator it, FinishReason reason, Status error) {
    Request request = std::move(*it);
    requests_.erase(it);
    --live;
    RequestResult result;
    result.reason = reason;
    result.error = std::move(error);
    result.prompt_tokens = static_cast<uint32_t>(request.request.prompt.size());
    result.generated_tokens = request.emitted;
    request.sink->OnDone(result);
  }
  std::list<Request> requests_;
  uint64_t last_ = 0;
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(::testing::TempDir() + "thimble-rpc-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << path_;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class FakeDaemon final : public StatusSource {
 public:
  static constexpr uint32_t kContext = 512;

  explicit FakeDaemon(std::chrono::milliseconds grace = std::chrono::seconds(5))
      : address_("unix:" + directory_.path() + "/socket"), grace_(grace) {}
  ~FakeDaemon() override { (void)Stop(); }  // NOLINT(bugprone-exception-escape): posting, joining
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  FakeScheduler scheduler;
  RpcServerOptions options;
  Model model;
  Plan plan;

  // After the scheduler and the options are as the test wants them.
  void Start() {
    std::promise<Status> started;
    std::future<Status> result = started.get_future();
    thread_ = std::thread([this, &started] { Run(&started); });
    const Status status = result.get();
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  // Does what SIGTERM does and waits for the loop to end; what Run returned.
  Status Stop() {
    BeginStop();
    return Join();
  }
  void BeginStop() {
    On([this] { loop_->Stop("the daemon is stopping"); });
  }
  Status Join() {
    if (thread_.joinable()) thread_.join();
    return ended_;
  }
  // Runs `f` on the loop's thread.
  template <typename F>
  void On(F f) {
    if (thread_.joinable()) boost::asio::post(loop_->io(), std::move(f));
  }
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] std::string socket() const { return directory_.path() + "/socket"; }

  [[nodiscard]] DaemonStatus Describe() const override {
    DaemonStatus status;
    status.version = "1.2.3";
    status.model_name = "fake \xff";
    status.ceiling_bytes = 64 << 20;
    status.requests = scheduler.status();
    status.reader_refusals = {"io_uring: Operation not permitted"};
    return status;
  }

 private:
  void Run(std::promise<Status>* started) {
    options.address = *ParseListenAddress(address_);
    FakeTokenizer tokenizer;
    Result<std::unique_ptr<RpcServer>> server =
        RpcServer::Start(options, RpcServices{scheduler, tokenizer, *this, model, plan, kContext});
    if (!server.ok()) {
      started->set_value(server.status());
      return;
    }
    loop_ = std::make_unique<EventLoop>(scheduler, **server, grace_);
    loop_->WatchProgress([this] { return scheduler.tokens.load(); },
                         std::chrono::milliseconds(300));
    started->set_value({});
    ended_ = loop_->Run();
    server->reset();
  }

  TemporaryDirectory directory_;
  const std::string address_;
  const std::chrono::milliseconds grace_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  Status ended_;
};

// Waits, at most `seconds`, until `condition` holds.
template <typename Condition>
bool WaitUntil(Condition condition, double seconds = 10) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace thimble
