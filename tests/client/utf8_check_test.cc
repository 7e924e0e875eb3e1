#include "client/utf8_check.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

TEST(CheckUtf8, NamesWhatAndWhere) {
  EXPECT_TRUE(CheckUtf8("PROMPT", "").ok());
  EXPECT_TRUE(CheckUtf8("PROMPT", "caf\xc3\xa9 \xf0\x9f\x90\x8b").ok());
  EXPECT_EQ(CheckUtf8("PROMPT", "caf\xc3").ToString(),
            "INVALID_ARGUMENT: PROMPT: not UTF-8: byte 0xc3 at offset 3");
  EXPECT_EQ(CheckUtf8("--stop", "\xff").ToString(),
            "INVALID_ARGUMENT: --stop: not UTF-8: byte 0xff at offset 0");
}

TEST(CheckUtf8, RefusesWhatProtobufRefuses) {
  EXPECT_FALSE(CheckUtf8("", "\xc0\x80").ok());          // overlong
  EXPECT_FALSE(CheckUtf8("", "\xed\xa0\x80").ok());      // a surrogate
  EXPECT_FALSE(CheckUtf8("", "\xf4\x90\x80\x80").ok());  // beyond U+10FFFF
}

}  // namespace
}  // namespace thimble
