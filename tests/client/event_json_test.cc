#include "client/event_json.h"

#include <gtest/gtest.h>

#include <limits>

#include "client/json_line.h"

namespace thimble {
namespace {

TEST(EventJson, EachEventHasItsFieldsInOrder) {
  v1::GenerateEvent event;
  event.mutable_queued()->set_position(1);
  EXPECT_EQ(EventJson(event), R"({"event":"queued","position":1})");

  event.mutable_started()->set_prompt_tokens(5);
  event.mutable_started()->set_seed(18446744073709551615U);
  EXPECT_EQ(
      EventJson(event),
      R"({"event":"started","prompt_tokens":5,"cached_prompt_tokens":0,"seed":18446744073709551615})");

  event.mutable_prompt_progress()->set_done(5);
  event.mutable_prompt_progress()->set_total(5);
  EXPECT_EQ(EventJson(event), R"({"event":"prompt_progress","done":5,"total":5})");

  event.mutable_token()->set_id(407);
  event.mutable_token()->set_text(" \"time\"\n\x01");
  event.mutable_token()->set_log_probability(-0.25F);
  EXPECT_EQ(
      EventJson(event),
      R"({"event":"token","index":0,"id":407,"text":" \"time\"\n\u0001","log_probability":-0.25})");

  event.mutable_done()->set_reason(v1::FINISH_REASON_LENGTH);
  event.mutable_done()->set_prompt_tokens(5);
  event.mutable_done()->set_generated_tokens(64);
  event.mutable_done()->set_total_seconds(1.5);
  event.mutable_done()->set_tail("caf\xc3\xa9");
  EXPECT_EQ(
      EventJson(event),
      R"({"event":"done","reason":"length","prompt_tokens":5,"cached_prompt_tokens":0,"generated_tokens":64,)"
      R"("queued_seconds":0,"first_token_seconds":0,"total_seconds":1.5,"tail":"café"})");
}

TEST(EventJson, AnUnknownEventIsLeftOut) { EXPECT_EQ(EventJson(v1::GenerateEvent()), ""); }

TEST(JsonLine, NumbersThatJsonCannotSayAreNull) {
  EXPECT_EQ(JsonLine().Add("a", std::numeric_limits<double>::infinity()).str(), R"({"a":null})");
  EXPECT_EQ(JsonLine().Add("a", std::numeric_limits<float>::quiet_NaN()).str(), R"({"a":null})");
}

}  // namespace
}  // namespace thimble
