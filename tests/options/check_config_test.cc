#include "daemon/check_config.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/options/options_test_util.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

TEST(CheckConfig, PrintsEveryValueWithItsSource) {
  const Result<Invocation> read = Read({"--max-active", "2"}, {"THIMBLE_STATE_DIR=/a b"});
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  const std::string text = DescribeOptions(*read);
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_NE(text.find("\n" + std::string(spec.show(Config()) == spec.fallback ? "" : "#") +
                        spec.name + " = "),
              std::string::npos)
        << spec.name << " in\n"
        << text;
  }
  EXPECT_NE(text.find("max-active = 2 "), std::string::npos) << text;
  EXPECT_NE(text.find("# command line\n"), std::string::npos) << text;
  EXPECT_NE(text.find("state-dir = \"/a b\" "), std::string::npos) << text;
  EXPECT_NE(text.find("# THIMBLE_STATE_DIR\n"), std::string::npos) << text;
}

TEST(CheckConfig, WhatItPrintsIsAConfigurationFileOfTheSameValues) {
  const TempDir directory;
  const Result<Invocation> read =
      Read({"--max-active", "2", "--state-dir", "/a # b", "--ram-ceiling", "24M"});
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  const std::string path = directory.path() + "/thimbled.conf";
  std::ofstream(path) << DescribeOptions(*read);
  const Result<Invocation> again = Read({}, {}, path);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_EQ(spec.show(again->config), spec.show(read->config)) << spec.name;
  }
}

TEST(CheckConfig, TheModelsHeaderIsRead) {
  const Result<std::string> builtin = DescribeModel(Config());
  ASSERT_TRUE(builtin.ok()) << builtin.status().ToString();
  EXPECT_NE(builtin->find("gpt2, 6 layers"), std::string::npos) << *builtin;

  Config config;
  config.model = "/nowhere.gguf";
  EXPECT_TRUE(Says(DescribeModel(config).status(), "/nowhere.gguf"));
  const TempDir directory;
  config.model = directory.path() + "/garbage.gguf";
  std::ofstream(config.model) << "GGUF and nothing more";
  EXPECT_TRUE(Says(DescribeModel(config).status(), "garbage.gguf"));
  config.model.clear();
  config.context_tokens = 513;
  EXPECT_TRUE(Says(DescribeModel(config).status(), "trained for 512"));
}

}  // namespace
}  // namespace thimble
