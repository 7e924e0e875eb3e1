#include "storage/base/bytes.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

TEST(ParseSize, TakesPowersOf1024WithOptionalUnitLetters) {
  EXPECT_EQ(ParseSize("4096").value(), 4096U);
  EXPECT_EQ(ParseSize("0").value(), 0U);
  EXPECT_EQ(ParseSize("512K").value(), 512 * kKiB);
  EXPECT_EQ(ParseSize("64M").value(), 64 * kMiB);
  EXPECT_EQ(ParseSize("64MiB").value(), 64 * kMiB);
  EXPECT_EQ(ParseSize("64mb").value(), 64 * kMiB);
  EXPECT_EQ(ParseSize("1g").value(), kGiB);
  EXPECT_EQ(ParseSize("17179869183G").value(), 17179869183U * kGiB);
  EXPECT_EQ(ParseSize("18446744073709551615").value(), UINT64_MAX);
}

TEST(ParseSize, RefusesEverythingElseAndQuotesIt) {
  for (const char* text : {"", "M", "-1", "+1", " 1", "1 M", "1.5G", "64X", "64MX", "64MiBs",
                           "0x10", "18446744073709551616", "17179869184G", "1B", "64Mi"}) {
    const auto size = ParseSize(text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_EQ(size.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(size.status().message().find("\"" + std::string(text) + "\""), std::string::npos);
  }
}

TEST(FormatBytes, SpellsTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 bytes");
  EXPECT_EQ(FormatBytes(1), "1 byte");
  EXPECT_EQ(FormatBytes(1023), "1023 bytes");
  EXPECT_EQ(FormatBytes(4096), "4.0 KiB");
  EXPECT_EQ(FormatBytes(kMiB + kMiB / 2), "1.5 MiB");
  EXPECT_EQ(FormatBytes(5000 * kGiB), "5000.0 GiB");
}

TEST(Checked, SaysWhen64BitsDoNotHoldTheResult) {
  uint64_t out = 7;
  EXPECT_TRUE(CheckedMul(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, &out));
  EXPECT_EQ(out, 0xffffffff00000000U);
  EXPECT_FALSE(CheckedMul(uint64_t{1} << 32, uint64_t{1} << 32, &out));
  EXPECT_TRUE(CheckedAdd(UINT64_MAX - 1, 1, &out));
  EXPECT_EQ(out, UINT64_MAX);
  EXPECT_FALSE(CheckedAdd(UINT64_MAX, 1, &out));
}

TEST(Align, RoundsToMultiples) {
  EXPECT_EQ(AlignUp(0, 4096), 0U);
  EXPECT_EQ(AlignUp(1, 4096), 4096U);
  EXPECT_EQ(AlignUp(4096, 4096), 4096U);
  EXPECT_EQ(AlignDown(8191, 4096), 4096U);
}

}  // namespace
}  // namespace thimble
