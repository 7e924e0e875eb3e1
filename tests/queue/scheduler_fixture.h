// For the scheduler's tests: a scheduler over fakes, and the calls that most of them make.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "daemon/queue/scheduler.h"
#include "tests/queue/fakes.h"

namespace thimble {

class SchedulerTest : public testing::Test {
 protected:
  uint64_t Submit(const GenerationRequest& request, RecordingSink& sink) {
    const Result<uint64_t> number = world_.scheduler->Submit(request, &sink);
    EXPECT_TRUE(number.ok()) << number.status().ToString();
    return number.ok() ? *number : 0;
  }
  Status Refused(const GenerationRequest& request) {
    RecordingSink sink;
    return world_.scheduler->Submit(request, &sink).status();
  }
  std::vector<TokenId> Alone(const GenerationRequest& request) {
    SchedulerWorld world;
    world.Restart();
    RecordingSink sink;
    EXPECT_TRUE(world.scheduler->Submit(request, &sink).ok());
    world.Run();
    EXPECT_TRUE(sink.done.has_value());
    return sink.ids;
  }
  // Where the next token follows from the last one.
  void Chain(const std::vector<int32_t>& script) {
    world_.set_up_runner = [script](FakeRunner& runner) {
      runner.next_token = [script](const std::vector<int32_t>& tokens) {
        const auto at = std::find(script.begin(), script.end(), tokens.back());
        return at == script.end() || at + 1 == script.end() ? script.front() : *(at + 1);
      };
    };
  }

  SchedulerWorld world_;
};

}  // namespace thimble
