#include "daemon/rpc/server.h"

#include <sys/stat.h>

#include <cstdio>
#include <fstream>

#include "client/client.h"
#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

using Clock = std::chrono::steady_clock;

v1::GenerateRequest Request(uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_prompt("Once");
  request.set_max_tokens(max_tokens);
  return request;
}

size_t OpenDescriptors() {
  size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++n;
  return n;
}

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

TEST(RpcServer, TellsItsStatus) {
  FakeDaemon daemon;
  daemon.Start();
  Result<Client> client = Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok()) << client.status().ToString();
  for (int i = 0; i < 3; ++i) {
    const Result<v1::GetStatusResponse> status = client->GetStatus();
    ASSERT_TRUE(status.ok()) << status.status().ToString();
    EXPECT_EQ(status->version(), "1.2.3");
    EXPECT_EQ(status->model_name(), "fake \xef\xbf\xbd");
    EXPECT_EQ(status->ceiling_bytes(), 64 << 20);
    EXPECT_EQ(status->reader_refusals(0), "io_uring: Operation not permitted");
  }
}

TEST(RpcServer, TheSocketIsForOwnerAndGroupAndGoesAtTheEnd) {
  FakeDaemon daemon;
  daemon.Start();
  struct stat info {};
  ASSERT_EQ(::stat(daemon.socket().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660);
  EXPECT_TRUE(daemon.Stop().ok());
  EXPECT_NE(::stat(daemon.socket().c_str(), &info), 0);
}

TEST(RpcServer, ASecondOneOnTheSameSocketIsRefused) {
  FakeDaemon daemon;
  daemon.Start();
  FakeScheduler scheduler;
  FakeTokenizer tokenizer;
  RpcServerOptions options;
  options.address = *ParseListenAddress(daemon.address());
  const Result<std::unique_ptr<RpcServer>> second = RpcServer::Start(
      options, RpcServices{scheduler, tokenizer, daemon, daemon.model, daemon.plan, 512});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find(daemon.socket()), std::string::npos);
  Result<Client> client = Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(client->GetStatus().ok()) << "the first one is unharmed";
}

TEST(RpcServer, ShutdownEndsLiveStreamsWithUnavailable) {
  FakeDaemon daemon;
  daemon.scheduler.paused = true;
  daemon.Start();
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::vector<Status> statuses(8);
  std::atomic<int> done_events = 0;
  for (Status& status : statuses) {
    threads.emplace_back([&daemon, &status, &done_events] {
      Result<Client> client = Client::Connect(daemon.address());
      ASSERT_TRUE(client.ok());
      grpc::ClientContext context;
      status = client->Generate(Request(10), context, [&](const v1::GenerateEvent& event) {
        done_events += event.has_done() ? 1 : 0;
        return true;
      });
    });
  }
  ASSERT_TRUE(WaitUntil([&] { return daemon.scheduler.live == 8; }));
  const Clock::time_point begin = Clock::now();
  EXPECT_TRUE(daemon.Stop().ok());
  EXPECT_LT(SecondsSince(begin), 3);
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) {
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_EQ(status.message(), "the daemon is stopping");
  }
  EXPECT_EQ(done_events, 0) << "what goes on later is not done";
}

TEST(RpcServer, ShutdownCutsOffAClientThatDoesNotRead) {
  FakeDaemon daemon(std::chrono::milliseconds(300));
  daemon.scheduler.text = std::string(16384, 'x');
  daemon.Start();
  std::atomic<bool> stopped = false;
  std::atomic<bool> started = false;
  std::thread reader([&] {
    Result<Client> client = Client::Connect(daemon.address());
    ASSERT_TRUE(client.ok());
    grpc::ClientContext context;
    const Status status =
        client->Generate(Request(512), context, [&](const v1::GenerateEvent& /*event*/) {
          started = true;
          return WaitUntil([&] { return stopped.load(); }, 60);
        });
    EXPECT_FALSE(status.ok());
  });
  ASSERT_TRUE(WaitUntil([&] { return started.load(); }));
  const Clock::time_point begin = Clock::now();
  EXPECT_TRUE(daemon.Stop().ok());
  EXPECT_LT(SecondsSince(begin), 4);
  stopped = true;
  reader.join();
}

TEST(RpcServer, IdleConnectionsDoNotHoldUpTheShutdown) {
  FakeDaemon daemon;
  daemon.Start();
  Result<Client> client = Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE(client->GetStatus().ok());
  const Clock::time_point begin = Clock::now();
  EXPECT_TRUE(daemon.Stop().ok());
  EXPECT_LT(SecondsSince(begin), 3);
}

TEST(RpcServer, ASchedulerThatCannotGoOnEndsTheLoopInOrder) {
  FakeDaemon daemon;
  daemon.scheduler.step_error = DataLossError("read blk.0.attn_q.weight: the file has shrunk");
  daemon.Start();
  Result<Client> client = Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok());
  grpc::ClientContext context;
  const Status status =
      client->Generate(Request(3), context, [](const v1::GenerateEvent&) { return true; });
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("the file has shrunk"), std::string::npos);
  EXPECT_EQ(daemon.Join().code(), StatusCode::kDataLoss);
}

TEST(RpcServer, TwoHundredCancelledCallsLeaveNoDescriptors) {
  FakeDaemon daemon;
  daemon.Start();
  size_t before = 0;
  for (int i = 0; i < 210; ++i) {
    if (i == 10) {  // gRPC's own have been opened
      ASSERT_TRUE(WaitUntil([&] { return daemon.scheduler.live == 0; }));
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      before = OpenDescriptors();
    }
    Result<Client> client = Client::Connect(daemon.address());
    ASSERT_TRUE(client.ok()) << client.status().ToString();
    grpc::ClientContext context;
    const Status status =
        client->Generate(Request(512), context, [](const v1::GenerateEvent&) { return false; });
    ASSERT_EQ(status.code(), StatusCode::kCancelled) << status.ToString();
  }
  EXPECT_TRUE(WaitUntil([&] { return daemon.scheduler.live == 0; }));
  EXPECT_TRUE(WaitUntil([&] { return OpenDescriptors() <= before; }))
      << OpenDescriptors() << " open, before " << before;
}

TEST(RpcServer, AMessageAboveTheLimitIsRefusedAndTheServerGoesOn) {
  FakeDaemon daemon;
  daemon.Start();
  Result<Client> client = Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok());
  v1::GenerateRequest request;
  request.set_prompt(std::string(2 << 20, 'a'));
  grpc::ClientContext context;
  const Status status =
      client->Generate(request, context, [](const v1::GenerateEvent&) { return true; });
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  // Under it, but more than the context could hold; several at once within gRPC's quota.
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&daemon] {
      Result<Client> other = Client::Connect(daemon.address());
      ASSERT_TRUE(other.ok());
      v1::GenerateRequest large;
      large.set_prompt(std::string(90 << 10, 'a'));
      grpc::ClientContext large_context;
      const Status refused =
          other->Generate(large, large_context, [](const v1::GenerateEvent&) { return true; });
      EXPECT_EQ(refused.code(), StatusCode::kOutOfRange) << refused.ToString();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(client->GetStatus().ok());
}

}  // namespace
}  // namespace thimble
