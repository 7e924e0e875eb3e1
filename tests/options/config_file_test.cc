#include "daemon/config_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

// "3 key=value|..." of what was read.
std::string Lines(std::string_view text) {
  std::vector<std::string> problems;
  std::string all;
  for (const ConfigLine& line : ParseConfigText(text, "f", problems)) {
    all += std::to_string(line.line) + " " + line.key + "=" + line.value + "|";
  }
  EXPECT_TRUE(problems.empty()) << problems.front();
  return all;
}

std::vector<std::string> Problems(std::string_view text) {
  std::vector<std::string> problems;
  (void)ParseConfigText(text, "f", problems);
  return problems;
}

TEST(ConfigFile, ReadsKeysAndValuesBetweenBlanksAndComments) {
  EXPECT_EQ(Lines(""), "");
  EXPECT_EQ(Lines("\n\n# only\n  # comments\n"), "");
  EXPECT_EQ(Lines("a=1\n b =\t2 \r\n\nc = x=y # why\nd = no#comment"),
            "1 a=1|2 b=2|4 c=x=y|5 d=no#comment|");
  EXPECT_EQ(Lines("a = \" b # c \"\nb = \"\"\nc ="), "1 a= b # c |2 b=|3 c=|");
}

TEST(ConfigFile, WhatIsMalformedIsToldWithItsLine) {
  const std::string text = "a = 1\nnonsense\n= 3\na = 2\nb = \"open\nc = x\"y\"\n[d]\ne = ";
  const std::vector<std::string> problems = Problems(text + '\0' + "\n");
  ASSERT_EQ(problems.size(), 7);
  EXPECT_EQ(problems[0], "f:2: \"nonsense\": expected key = value");
  EXPECT_EQ(problems[1], "f:3: no key before the \"=\"");
  EXPECT_EQ(problems[2], "f:4: a: stands in line 1 already");
  EXPECT_EQ(problems[3].substr(0, 4), "f:5:");
  EXPECT_EQ(problems[4].substr(0, 4), "f:6:");
  EXPECT_EQ(problems[5], "f:7: \"[d]\": expected key = value");
  EXPECT_EQ(problems[6], "f:8: a zero byte: this is no text");
}

TEST(ConfigFile, AFileThatIsTooLargeOrNoneIsRefused) {
  const TempDir directory;
  const std::string path = directory.path() + "/f";
  std::ofstream(path) << std::string(kMaxConfigBytes, '#');
  const Result<std::string> largest = ReadConfigFile(path);
  ASSERT_TRUE(largest.ok()) << largest.status().ToString();
  EXPECT_EQ(largest->size(), kMaxConfigBytes);
  std::ofstream(path, std::ios::app) << "#";
  const Result<std::string> larger = ReadConfigFile(path);
  ASSERT_FALSE(larger.ok());
  EXPECT_NE(larger.status().message().find(path), std::string::npos);
  EXPECT_EQ(ReadConfigFile(directory.path() + "/none").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadConfigFile(directory.path()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(*ReadConfigFile("/dev/null"), "");
}

}  // namespace
}  // namespace thimble
