#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "daemon/model/tokenizer.h"
#include "daemon/model/utf8.h"

namespace thimble {
namespace {

TEST(Utf8Joiner, HoldsACharacterBackUntilItIsWhole) {
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Push("a\xF0\x9F"), "a");
  EXPECT_EQ(joiner.Push("\x98"), "");
  EXPECT_EQ(joiner.Push("\x80"
                        "b"),
            "😀b");
  EXPECT_EQ(joiner.Flush(), "");
}

TEST(Utf8Joiner, PassesOnWhatCanNeverBeACharacter) {
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Push("\xFF"), "\xFF");
  EXPECT_EQ(joiner.Push("\x80"), "\x80");
  EXPECT_EQ(joiner.Push("\xC0"), "\xC0") << "would be overlong";
  EXPECT_EQ(joiner.Push("\xED\xA0"), "\xED\xA0") << "would be a surrogate";
  EXPECT_EQ(joiner.Push("\xF4\x90"), "\xF4\x90") << "would be above U+10FFFF";
  EXPECT_EQ(joiner.Push("\xE2\x96"), "");
  EXPECT_EQ(joiner.Push("x"), "\xE2\x96x");
}

TEST(Utf8Joiner, FlushGivesTheRestOnce) {
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Push("\xE2\x96"), "");
  EXPECT_EQ(joiner.Flush(), "\xE2\x96");
  EXPECT_EQ(joiner.Flush(), "");
  EXPECT_EQ(joiner.Push("a"), "a");
}

// The offsets inside of valid characters of `text`, decoded from the left.
std::vector<bool> InsideCharacter(const std::string& text) {
  std::vector<bool> inside(text.size() + 1, false);
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = std::max<size_t>(1, Utf8CharBytes(std::string_view(text).substr(at)));
    for (size_t i = 1; i < bytes; ++i) inside[at + i] = true;
    at += bytes;
  }
  return inside;
}

TEST(Utf8Joiner, AnyBytesCutAnywhereStayTheSameAndNoCharacterIsSplit) {
  std::mt19937 random(5);
  const std::vector<std::string> parts = {"a", "é", "漢", "😀", "\xE2", "\xF0\x9F", "\x80", "\xFF"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (size_t n = random() % 20; n > 0; --n) {
      if (random() % 4 == 0) {
        text.push_back(static_cast<char>(random()));
      } else {
        text += parts[random() % parts.size()];
      }
    }
    const std::vector<bool> inside = InsideCharacter(text);
    Utf8Joiner joiner;
    std::string joined;
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = std::min<size_t>(1 + random() % 5, text.size() - at);
      joined += joiner.Push(std::string_view(text).substr(at, bytes));
      at += bytes;
      ASSERT_FALSE(inside[joined.size()]) << "a character is split";
      ASSERT_LE(at - joined.size(), 3U) << "more held back than the beginning of a character";
    }
    joined += joiner.Flush();
    ASSERT_EQ(joined, text);
  }
}

}  // namespace
}  // namespace thimble
