#include "daemon/queue/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace thimble {
namespace {

// The text that comes out of pushes of `size` bytes, and whether it was stopped.
std::pair<std::string, bool> Cut(const std::vector<std::string>& stops, std::string_view text,
                                 size_t size) {
  StopMatcher matcher(stops);
  std::string out;
  for (size_t at = 0; at < text.size(); at += size) matcher.Push(text.substr(at, size), &out);
  if (!matcher.stopped()) out += matcher.Flush();
  return {out, matcher.stopped()};
}

// By definition: the first end of any stop string, the longest that ends there.
std::pair<std::string, bool> Reference(const std::vector<std::string>& stops,
                                       const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, AgreesWithTheDefinitionHoweverTheTextIsCut) {
  std::mt19937 random(3);
  const auto word = [&](size_t longest) {
    std::string s;
    for (size_t n = 1 + random() % longest; n > 0; --n) s += static_cast<char>('a' + random() % 2);
    return s;
  };
  int stopped = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::string> stops;
    for (size_t n = random() % 4; n > 0; --n) stops.push_back(word(7));
    const std::string text = word(20);
    const auto expected = Reference(stops, text);
    stopped += expected.second ? 1 : 0;
    for (const size_t size : {1, 2, 3, 20}) ASSERT_EQ(Cut(stops, text, size), expected) << text;
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 2900);
}

TEST(StopMatcher, HoldsBackNoMoreThanMayBeginAStop) {
  const std::vector<std::string> stops = {"</end>", "STOP"};
  StopMatcher matcher(stops);
  std::string out;
  matcher.Push("a < b ST", &out);
  EXPECT_EQ(out, "a < b ");
  matcher.Push("O", &out);
  EXPECT_EQ(out, "a < b ");
  matcher.Push("NE </en", &out);
  EXPECT_EQ(out, "a < b STONE ");
  matcher.Push("d>more", &out);
  EXPECT_EQ(out, "a < b STONE ");
  EXPECT_TRUE(matcher.stopped());
  matcher.Push("nothing", &out);
  EXPECT_EQ(out, "a < b STONE ");
}

TEST(StopMatcher, StopsInsideAUtf8CharacterByBytes) {
  const std::vector<std::string> stops = {"\xE2\x82\xAC"};
  EXPECT_EQ(Cut(stops, "5 \xE2\x82\xAC!", 1).first, "5 ");
  EXPECT_EQ(Cut(stops, "5 \xE2\x82\xAD!", 1).first, "5 \xE2\x82\xAD!");
}

}  // namespace
}  // namespace thimble
