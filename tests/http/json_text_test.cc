#include "daemon/http/json_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace thimble {
namespace {

TEST(JsonText, CommasStandBetweenValuesAndNowhereElse) {
  JsonText json;
  json.Open('{')
      .Field("a", uint32_t{1})
      .List("b", std::vector<uint64_t>{1, UINT64_MAX})
      .List("none", std::vector<uint64_t>{})
      .Key("c")
      .Open('[')
      .Open('[')
      .Add(true)
      .Close(']')
      .Open('{')
      .Close('}')
      .Close(']')
      .Field("d", false)
      .Close('}');
  EXPECT_EQ(std::move(json).Take(),
            R"({"a":1,"b":[1,18446744073709551615],"none":[],"c":[[true],{}],"d":false})");
}

TEST(JsonText, TextOfAnyBytesIsEscapedAndStaysOnItsLine) {
  JsonText json;
  constexpr char kBytes[] = "q\" b\\ n\n\r\t\0 \x7f \xff é";
  json.Open('[').Add(std::string_view(kBytes, sizeof kBytes - 1)).Add("{[:").Add("x").Close(']');
  EXPECT_EQ(std::move(json).Take(), R"(["q\" b\\ n\u000a\u000d\u0009\u0000 )"
                                    "\x7f \xef\xbf\xbd é"
                                    R"(","{[:","x"])");
}

TEST(JsonText, NumbersAreExactAndNeverInfinite) {
  JsonText json;
  json.Open('[').Add(0.1).Add(1e300).Add(std::nan("")).Add(-INFINITY).Close(']');
  EXPECT_EQ(std::move(json).Take(), "[0.1,1e+300,null,null]");
}

}  // namespace
}  // namespace thimble
