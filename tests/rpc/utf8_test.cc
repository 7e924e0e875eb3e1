#include "daemon/rpc/utf8.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

constexpr const char* kBad = "\xef\xbf\xbd";
std::string Bad(int n) {
  std::string s;
  for (int i = 0; i < n; ++i) s += kBad;
  return s;
}

TEST(ToValidUtf8, ValidTextIsUnchanged) {
  for (const std::string& s :
       {std::string(), std::string("plain"), std::string("caf\xc3\xa9"),
        std::string("\xe2\x82\xac"), std::string("\xf0\x9f\x98\x80"), std::string("a\0b", 3),
        std::string("\xed\x9f\xbf"), std::string("\xf4\x8f\xbf\xbf")}) {
    EXPECT_EQ(ToValidUtf8(s), s);
  }
}

// The examples of Unicode 15, tables 3-8 to 3-11.
TEST(ToValidUtf8, EveryMaximalInvalidPartIsOneReplacement) {
  EXPECT_EQ(ToValidUtf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), Bad(8) + "A");
  EXPECT_EQ(ToValidUtf8("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), Bad(8) + "A");
  EXPECT_EQ(ToValidUtf8("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), Bad(5) + "A" + Bad(2) + "B");
  EXPECT_EQ(ToValidUtf8("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), Bad(4) + "A");
}

TEST(ToValidUtf8, ACharacterCutOffAtTheEndIsOneReplacement) {
  EXPECT_EQ(ToValidUtf8("a\xe2\x82"), "a" + Bad(1));
  EXPECT_EQ(ToValidUtf8("a\xf0"), "a" + Bad(1));
}

}  // namespace
}  // namespace thimble
