#include "daemon/log.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

class Log : public ::testing::Test {
 protected:
  void TearDown() override { SetLogLevel(LogLevel::kInfo); }

  static std::string Written(LogLevel level) {
    ::testing::internal::CaptureStderr();
    LogLine(level, "e").Add("n", 1).Add("text", "two words");
    return ::testing::internal::GetCapturedStderr();
  }
};

TEST_F(Log, LevelsAreNamedAsTheyAreRead) {
  for (const char* name : {"error", "warning", "notice", "info", "debug"}) {
    const Result<LogLevel> level = ParseLogLevel(name);
    ASSERT_TRUE(level.ok()) << name;
    EXPECT_EQ(LogLevelName(*level), name);
  }
  EXPECT_FALSE(ParseLogLevel("Info").ok());
  EXPECT_FALSE(ParseLogLevel("").ok());
}

TEST_F(Log, ALineIsOneEventWithItsTimeAndLevel) {
  const std::string line = Written(LogLevel::kInfo);
  ASSERT_GT(line.size(), 21);
  EXPECT_EQ(line[19], 'Z') << line;
  EXPECT_EQ(line.substr(21), "level=info event=e n=1 text=\"two words\"\n");
}

TEST_F(Log, WhatIsLessSevereThanTheLevelIsNotWritten) {
  EXPECT_EQ(Written(LogLevel::kDebug), "");
  SetLogLevel(LogLevel::kDebug);
  EXPECT_NE(Written(LogLevel::kDebug), "");
  SetLogLevel(LogLevel::kError);
  EXPECT_EQ(Written(LogLevel::kWarning), "");
  EXPECT_NE(Written(LogLevel::kError), "");
}

TEST_F(Log, ALineThatIsNotWrittenCostsNoText) {
  EXPECT_EQ(LogLine(LogLevel::kDebug, "e").Add("key", "value").text(), "");
}

}  // namespace
}  // namespace thimble
