#include "storage/stage_store.h"

#include <string>

#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

constexpr uint64_t kMap = uint64_t{16} << 20;

Result<std::string> ReadBack(StageStore& store, uint32_t value, uint32_t part, size_t n,
                             uint64_t offset = 0) {
  std::string out(n, '?');
  THIMBLE_RETURN_IF_ERROR(store.Read(value, part, std::as_writable_bytes(std::span(out)), offset));
  return out;
}

TEST(StageStore, ReadsBackWhatWasWrittenAcrossChunkBoundaries) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  auto store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok());
  uint64_t written = 0;
  for (const size_t n : {size_t{1}, size_t{65535}, size_t{65536}, size_t{65537}, size_t{200001}}) {
    const std::string text = Pattern(n, 1);
    ASSERT_OK((*store)->Write(7, static_cast<uint32_t>(n), AsBytes(text)));
    const auto back = ReadBack(**store, 7, static_cast<uint32_t>(n), n);
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_EQ(*back, text);
    written += n;
  }
  EXPECT_EQ((*store)->bytes_written(), written);
}

TEST(StageStore, PartsAreWrittenAndReadByOffset) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  auto store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok());
  const std::string text = Pattern(150000, 2);
  ASSERT_OK((*store)->Write(1, 0, AsBytes(text).first(131072)));
  ASSERT_OK((*store)->Write(1, 0, AsBytes(text).subspan(131072), 131072));
  const auto back = ReadBack(**store, 1, 0, 84464, 65536);
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(*back, text.substr(65536));
  EXPECT_EQ((*store)->Write(1, 0, AsBytes(text), 100).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadBack(**store, 1, 0, 8, 100).status().code(), StatusCode::kInvalidArgument);
}

TEST(StageStore, WhatWasNotWrittenIsNotFoundAndWhatIsShortIsDataLoss) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  auto store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(ReadBack(**store, 1, 0, 8).status().code(), StatusCode::kNotFound);
  ASSERT_OK((*store)->Write(1, 0, AsBytes(Pattern(65536 + 100, 3))));
  EXPECT_EQ(ReadBack(**store, 1, 1, 8).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadBack(**store, 0, 0, 8).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadBack(**store, 1, 0, 65536 + 101).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(ReadBack(**store, 1, 0, 200000).status().code(), StatusCode::kDataLoss);
  EXPECT_TRUE(ReadBack(**store, 1, 0, 65536 + 100).ok());
}

TEST(StageStore, AShorterValueLeavesNothingOfALongerOne) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  auto store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok());
  ASSERT_OK((*store)->Write(1, 0, AsBytes(Pattern(300000, 4))));
  ASSERT_OK((*store)->Write(1, 1, AsBytes(Pattern(100, 5))));
  ASSERT_OK((*store)->Write(1, 0, AsBytes(Pattern(70000, 6))));
  EXPECT_EQ(ReadBack(**store, 1, 0, 140000).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(ReadBack(**store, 1, 0, 8, 131072).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(*ReadBack(**store, 1, 1, 100), Pattern(100, 5));
}

TEST(StageStore, OutputsOfAnEarlierProcessAreRemoved) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  ASSERT_OK((*StageStore::Open(*env))->Write(1, 0, AsBytes("abc")));
  auto store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(ReadBack(**store, 1, 0, 3).status().code(), StatusCode::kNotFound);
}

TEST(StageStore, AFullMapFailsTheWriteAndSmallerValuesGoOn) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{1} << 20);
  auto store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok());
  const std::string small = Pattern(100000, 7);
  ASSERT_OK((*store)->Write(1, 0, AsBytes(small)));
  EXPECT_EQ((*store)->Write(2, 0, AsBytes(Pattern(3000000, 8))).code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(*ReadBack(**store, 1, 0, small.size()), small);
  store = StageStore::Open(*env);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  for (unsigned i = 0; i < 50; ++i) {
    ASSERT_OK((*store)->Write(1, 0, AsBytes(Pattern(100000, i))));
    EXPECT_EQ(*ReadBack(**store, 1, 0, 100000), Pattern(100000, i));
  }
}

}  // namespace
}  // namespace thimble
