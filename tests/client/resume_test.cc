#include "client/resume.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace thimble {
namespace {

using std::chrono::milliseconds;

v1::GenerateEvent TokenEvent(uint32_t index, int32_t id) {
  v1::GenerateEvent event;
  event.mutable_token()->set_index(index);
  event.mutable_token()->set_id(id);
  return event;
}

v1::GenerateEvent StartedEvent() {
  v1::GenerateEvent event;
  event.mutable_started()->set_prompt_tokens(3);
  return event;
}

v1::GenerateEvent DoneEvent(v1::FinishReason reason) {
  v1::GenerateEvent event;
  event.mutable_done()->set_reason(reason);
  return event;
}

// A socket that takes connections in and says nothing: enough for Connect and Reconnect.
class Listener {
 public:
  Listener() {
    EXPECT_NE(::mkdtemp(directory_.data()), nullptr);
    path_ = directory_ + "/socket";
    Listen();
  }
  ~Listener() {
    Close();
    (void)::rmdir(directory_.c_str());
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void Listen() {
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    std::memcpy(static_cast<char*>(where.sun_path), path_.data(), path_.size());
    fd_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    ASSERT_EQ(::listen(fd_, 64), 0);
  }
  void Close() {
    if (fd_ < 0) return;
    ::close(fd_);
    (void)::unlink(path_.c_str());
    fd_ = -1;
  }
  [[nodiscard]] std::string address() const { return "unix:" + path_; }

 private:
  std::string directory_ = "/tmp/thimble-resume-XXXXXX";
  std::string path_;
  int fd_ = -1;
};

// One attempt's script: its events, then its status.
struct Script {
  std::vector<v1::GenerateEvent> events;
  Status status;
};

class Resume : public testing::Test {
 protected:
  Resume() : client_(Client::Connect(listener_.address()).value()) {}

  Status Run(std::vector<Script> scripts, milliseconds patience, std::stop_token stop = {}) {
    ResumeOptions options;
    options.patience = patience;
    options.on_lost = [this](const Status& why, milliseconds wait) {
      lost_.push_back(why.ToString());
      waits_.push_back(wait);
      if (on_lost_) on_lost_();
    };
    return StreamAndResume(
        client_,
        [&](Client&, grpc::ClientContext&, const Client::OnEvent& on_event) -> Status {
          if (attempts_ == scripts.size()) return UnavailableError("no more");
          const Script& script = scripts[attempts_++];
          for (const v1::GenerateEvent& event : script.events) {
            if (!on_event(event)) return CancelledError("by the client");
          }
          return script.status;
        },
        options, stop,
        [this](const v1::GenerateEvent& event) {
          if (event.has_token()) told_.push_back(event.token().id());
          started_ += event.has_started() ? 1 : 0;
          return true;
        });
  }

  Listener listener_;
  Client client_;
  size_t attempts_ = 0;
  std::vector<int32_t> told_;
  int started_ = 0;
  std::vector<std::string> lost_;
  std::vector<milliseconds> waits_;
  std::function<void()> on_lost_;
};

TEST_F(Resume, GoesOnBehindTheLastTokenThatWasTold) {
  const Status status =
      Run({{{StartedEvent(), TokenEvent(0, 7), TokenEvent(1, 8)}, UnavailableError("lost")},
           {{StartedEvent(), TokenEvent(0, 7)}, UnavailableError("lost again")},
           {{StartedEvent(), TokenEvent(0, 7), TokenEvent(1, 8), TokenEvent(2, 9),
             DoneEvent(v1::FINISH_REASON_LENGTH)},
            {}}},
          milliseconds(5000));
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(told_, (std::vector<int32_t>{7, 8, 9}));
  EXPECT_EQ(started_, 1);
  EXPECT_EQ(lost_.size(), 2U);
}

TEST_F(Resume, WithoutPatienceALostConnectionIsAnErrorAtOnce) {
  const Status status = Run({{{TokenEvent(0, 7)}, UnavailableError("lost")}}, milliseconds(0));
  EXPECT_EQ(status.ToString(), "UNAVAILABLE: lost");
  EXPECT_TRUE(waits_.empty());
}

TEST_F(Resume, WaitsTwiceAsLongEachTimeUntilPatienceIsOver) {
  const Status status = Run({{{TokenEvent(0, 7)}, UnavailableError("lost")}}, milliseconds(1000));
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("given up after 1 s"), std::string::npos) << status.ToString();
  // 0.1 + 0.2 + 0.4; 0.8 more would be too much.
  EXPECT_EQ(waits_, (std::vector{milliseconds(100), milliseconds(200), milliseconds(400)}));
}

TEST_F(Resume, WaitsForTheSocketToComeBack) {
  on_lost_ = [this] {
    if (lost_.size() == 1) listener_.Close();
    if (lost_.size() == 3) listener_.Listen();
  };
  const Status status =
      Run({{{TokenEvent(0, 7)}, UnavailableError("lost")},
           {{TokenEvent(0, 7), TokenEvent(1, 8), DoneEvent(v1::FINISH_REASON_STOP)}, {}}},
          milliseconds(5000));
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(told_, (std::vector<int32_t>{7, 8}));
  ASSERT_EQ(lost_.size(), 3U);
  EXPECT_TRUE(lost_[1].starts_with("NOT_FOUND: connect to ")) << lost_[1];
}

TEST_F(Resume, AnotherTokenThanWasToldIsDataLoss) {
  const Status status = Run({{{TokenEvent(0, 7)}, UnavailableError("lost")},
                             {{TokenEvent(0, 6), DoneEvent(v1::FINISH_REASON_LENGTH)}, {}}},
                            milliseconds(5000));
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("token 0 is now 6 and was 7"), std::string::npos)
      << status.ToString();
}

TEST_F(Resume, AnEndBeforeWhatWasToldIsDataLoss) {
  const Status status = Run({{{TokenEvent(0, 7), TokenEvent(1, 8)}, UnavailableError("lost")},
                             {{TokenEvent(0, 7), DoneEvent(v1::FINISH_REASON_LENGTH)}, {}}},
                            milliseconds(5000));
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
}

TEST_F(Resume, AGapIsDataLoss) {
  EXPECT_EQ(Run({{{TokenEvent(1, 7)}, {}}}, milliseconds(5000)).code(), StatusCode::kDataLoss);
}

TEST_F(Resume, TheDaemonsOwnErrorsEndIt) {
  EXPECT_EQ(Run({{{}, InvalidArgumentError("top_p")}}, milliseconds(5000)).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(attempts_, 1U);
  // UNAVAILABLE after the end: flash could not be read, for example.
  EXPECT_EQ(Run({{}, {{DoneEvent(v1::FINISH_REASON_ERROR)}, UnavailableError("read")}},
                milliseconds(5000))
                .code(),
            StatusCode::kUnavailable);
  EXPECT_EQ(attempts_, 2U);
}

TEST_F(Resume, AStopEndsTheWaiting) {
  std::stop_source stop;
  on_lost_ = [&] {
    if (lost_.size() == 4) stop.request_stop();
  };
  const Status status = Run({}, milliseconds(600000), stop.get_token());
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_EQ(lost_.size(), 4U);
}

TEST(IsLostConnection, KnowsWhatMayComeBack) {
  EXPECT_TRUE(IsLostConnection(UnavailableError("the connection to the daemon was lost")));
  EXPECT_TRUE(IsLostConnection(NotFoundError("connect to unix:/x: No such file or directory")));
  EXPECT_TRUE(IsLostConnection(AlreadyExistsError("request \"a\": another client is being told")));
  EXPECT_FALSE(IsLostConnection(AlreadyExistsError("request \"a\": accepted before")));
  EXPECT_FALSE(IsLostConnection(NotFoundError("there is no such service")));
  EXPECT_FALSE(IsLostConnection(ResourceExhaustedError("queue")));
}

}  // namespace
}  // namespace thimble
