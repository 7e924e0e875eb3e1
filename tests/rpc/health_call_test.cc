#include "daemon/rpc/health_call.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/client.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr const char* kReadiness = "thimble.v1.Thimble";

HealthCheckRequest Of(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

std::chrono::system_clock::time_point Soon() {
  return std::chrono::system_clock::now() + std::chrono::seconds(20);
}

std::unique_ptr<Health::Stub> Connect(const FakeDaemon& daemon) {
  return Health::NewStub(grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials()));
}

// One Watch, from its first message on.
struct Watcher {
  Watcher(Health::Stub& stub, const std::string& service) {
    context.set_deadline(Soon());
    reader = stub.Watch(&context, Of(service));
    started = reader->Read(&first);
  }
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader;
  HealthCheckResponse first;
  bool started = false;
};

TEST(HealthCall, CheckKnowsTheProcessAndTheService) {
  FakeDaemon daemon;
  daemon.Start();
  const auto stub = Connect(daemon);
  for (const char* service : {"", kReadiness}) {
    grpc::ClientContext context;
    context.set_deadline(Soon());
    HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, Of(service), &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING) << service;
  }
}

TEST(HealthCall, CheckOfAnUnknownServiceIsNotFound) {
  FakeDaemon daemon;
  daemon.Start();
  grpc::ClientContext context;
  context.set_deadline(Soon());
  HealthCheckResponse response;
  const grpc::Status status = Connect(daemon)->Check(&context, Of("thimble.v2"), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_NE(status.error_message().find(kReadiness), std::string::npos) << status.error_message();
}

TEST(HealthCall, WatchTellsTheStateAtOnceAndTheStop) {
  FakeDaemon daemon;
  daemon.Start();
  const auto stub = Connect(daemon);
  for (const char* service : {"", kReadiness}) {
    Watcher watcher(*stub, service);
    ASSERT_TRUE(watcher.started);
    EXPECT_EQ(watcher.first.status(), HealthCheckResponse::SERVING);
    watcher.context.TryCancel();
    EXPECT_EQ(watcher.reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  Watcher watcher(*stub, kReadiness);
  ASSERT_TRUE(watcher.started);
  daemon.BeginStop();
  HealthCheckResponse last;
  ASSERT_TRUE(watcher.reader->Read(&last));
  EXPECT_EQ(last.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(watcher.reader->Read(&last));
  const grpc::Status status = watcher.reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the daemon is stopping");
  EXPECT_TRUE(daemon.Join().ok());
}

TEST(HealthCall, WatchOfAnUnknownServiceSaysSoAndGoesOn) {
  FakeDaemon daemon;
  daemon.Start();
  const auto stub = Connect(daemon);
  Watcher watcher(*stub, "nobody");
  ASSERT_TRUE(watcher.started);
  EXPECT_EQ(watcher.first.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  daemon.BeginStop();
  HealthCheckResponse last;
  EXPECT_FALSE(watcher.reader->Read(&last));
  EXPECT_EQ(watcher.reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(daemon.Join().ok());
}

TEST(HealthCall, AFrozenEngineIsNotReadyUntilItGetsOn) {
  FakeDaemon daemon;
  daemon.scheduler.frozen = true;
  daemon.Start();
  const auto stub = Connect(daemon);
  Watcher ready(*stub, kReadiness);
  ASSERT_TRUE(ready.started);
  EXPECT_EQ(ready.first.status(), HealthCheckResponse::SERVING) << "no work, so nothing is frozen";
  grpc::ClientContext context;
  context.set_deadline(Soon());
  std::thread waiting([&] {
    Result<Client> client = Client::Connect(daemon.address());
    ASSERT_TRUE(client.ok());
    v1::GenerateRequest request;
    request.set_prompt("Once");
    request.set_max_tokens(400);
    (void)client->Generate(request, context, [](const v1::GenerateEvent&) { return true; });
  });
  HealthCheckResponse next;
  ASSERT_TRUE(ready.reader->Read(&next));
  EXPECT_EQ(next.status(), HealthCheckResponse::NOT_SERVING);
  Result<Client> client = Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok());
  const Result<v1::GetStatusResponse> status = client->GetStatus();
  ASSERT_TRUE(status.ok());
  EXPECT_FALSE(status->ready());
  EXPECT_EQ(status->not_ready_reason().find("frozen: requests wait"), 0)
      << status->not_ready_reason();
  Watcher alive(*stub, "");
  EXPECT_EQ(alive.first.status(), HealthCheckResponse::SERVING) << "the process answers";
  daemon.scheduler.frozen = false;
  ASSERT_TRUE(ready.reader->Read(&next));
  EXPECT_EQ(next.status(), HealthCheckResponse::SERVING);
  context.TryCancel();
  waiting.join();
  alive.context.TryCancel();
  (void)alive.reader->Finish();
}

TEST(HealthCall, WatchersAreBoundedAndThoseThatLeaveMakeRoom) {
  FakeDaemon daemon;
  daemon.Start();
  const auto stub = Connect(daemon);
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (size_t i = 0; i < HealthWatchCall::kMaxWatchers; ++i) {
    watchers.push_back(std::make_unique<Watcher>(*stub, ""));
    ASSERT_TRUE(watchers.back()->started);
  }
  Watcher refused(*stub, "");
  EXPECT_FALSE(refused.started);
  EXPECT_EQ(refused.reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& watcher : watchers) {
    watcher->context.TryCancel();
    (void)watcher->reader->Finish();
  }
  EXPECT_TRUE(WaitUntil([&] {
    Watcher next(*stub, "");
    const bool room = next.started;
    next.context.TryCancel();
    (void)next.reader->Finish();
    return room;
  }));
  EXPECT_TRUE(daemon.Stop().ok());
}

}  // namespace
}  // namespace thimble
