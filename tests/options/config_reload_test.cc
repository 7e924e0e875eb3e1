#include "daemon/config_reload.h"

#include <gtest/gtest.h>

#include "tests/options/options_test_util.h"

namespace thimble {
namespace {

class ConfigReload : public ::testing::Test {
 protected:
  void TearDown() override { SetLogLevel(LogLevel::kInfo); }

  // What is logged while the options are reread.
  std::string Reload(const Result<Invocation>& fresh) {
    ::testing::internal::CaptureStderr();
    ApplyReread(fresh, config_);
    return ::testing::internal::GetCapturedStderr();
  }

  Config config_;
};

TEST_F(ConfigReload, TheLogLevelChangesAtOnce) {
  EXPECT_FALSE(LogsLevel(LogLevel::kDebug));
  const std::string log = Reload(Read({"--log-level", "debug"}));
  EXPECT_EQ(config_.log_level, LogLevel::kDebug);
  EXPECT_TRUE(LogsLevel(LogLevel::kDebug));
  EXPECT_NE(log.find("option=log-level before=info after=debug effect=now"), std::string::npos)
      << log;
  EXPECT_NE(log.find("changed=1"), std::string::npos) << log;
}

TEST_F(ConfigReload, WhatNeedsARestartIsNamedAndLeftAlone) {
  const std::string log = Reload(Read({"--max-active", "2", "--http", "off"}));
  EXPECT_EQ(config_.max_active, 4);
  EXPECT_EQ(config_.http, "127.0.0.1:9464");
  EXPECT_NE(log.find("option=max-active before=4 after=2 effect=\"after a restart\""),
            std::string::npos)
      << log;
  EXPECT_NE(log.find("option=http"), std::string::npos) << log;
}

TEST_F(ConfigReload, AnErrorChangesNothing) {
  const std::string log = Reload(Read({"--log-level", "debug", "--max-active", "0"}));
  EXPECT_EQ(config_.log_level, LogLevel::kInfo);
  EXPECT_FALSE(LogsLevel(LogLevel::kDebug));
  EXPECT_NE(log.find("level=error"), std::string::npos) << log;
  EXPECT_NE(log.find("--max-active 0"), std::string::npos) << log;
}

}  // namespace
}  // namespace thimble
