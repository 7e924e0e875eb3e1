#include "client/progress.h"

#include <gtest/gtest.h>

#include "client/terminal.h"

namespace thimble {
namespace {

TEST(ShortTime, TwoUnitsAtMost) {
  EXPECT_EQ(ShortTime(0.04), "0.0 s");
  EXPECT_EQ(ShortTime(3.26), "3.3 s");
  EXPECT_EQ(ShortTime(9.96), "10 s");
  EXPECT_EQ(ShortTime(59.6), "1 min 0 s");
  EXPECT_EQ(ShortTime(200), "3 min 20 s");
  EXPECT_EQ(ShortTime(7500), "2 h 5 min");
}

TEST(ProgressText, SaysWhatIsWaitedFor) {
  v1::GenerateEvent event;
  event.mutable_queued()->set_position(2);
  EXPECT_EQ(ProgressText(event), "queued at place 2");
  event.mutable_queued()->set_estimated_wait_seconds(12);
  EXPECT_EQ(ProgressText(event), "queued at place 2, about 12 s");
  event.mutable_started()->set_prompt_tokens(200);
  event.mutable_started()->set_cached_prompt_tokens(160);
  EXPECT_EQ(ProgressText(event), "reading the prompt: 40 tokens");
  event.mutable_prompt_progress()->set_done(64);
  event.mutable_prompt_progress()->set_total(200);
  EXPECT_EQ(ProgressText(event), "reading the prompt: 64 of 200 tokens");
  event.mutable_token();
  EXPECT_EQ(ProgressText(event), "");
}

TEST(Clip, CountsCharactersAndNotBytes) {
  EXPECT_EQ(Clip("naïve", 4), "naïv");
  EXPECT_EQ(Clip("naïve", 3), "naï");
  EXPECT_EQ(Clip("naïve", 80), "naïve");
  EXPECT_EQ(Clip("naïve", 0), "");
}

}  // namespace
}  // namespace thimble
