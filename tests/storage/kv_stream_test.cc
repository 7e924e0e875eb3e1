// Blocks on their way: in order, neighbours together, errors of those that were wanted alone.
#include "storage/kv_stream.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include "storage/base/bytes.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

constexpr uint64_t kLayerBytes = 5000;  // two pages with what lies before it
constexpr uint64_t kLeadBytes = 16;
constexpr uint64_t kPitch = 2 * kReadAlignment;

class KvStreamTest : public testing::Test {
 protected:
  KvStreamTest() : bytes_(Pattern(512 * 1024, 3)), memory_(2 * kMiB) {
    const std::string path = directory_.path() + "/file";
    FILE* file = std::fopen(path.c_str(), "wb");
    std::fwrite(bytes_.data(), 1, bytes_.size(), file);
    std::fclose(file);
    auto stream = KvStream::Open(path, ReaderBackend::kAuto, kLayerBytes, kPitch);
    EXPECT_OK(stream.status());
    stream_ = std::move(*stream);
  }

  // Two parts, as slots are, with room for so many blocks each.
  void Begin(size_t first, size_t second) {
    const auto part = [](size_t n) { return kReadAlignment + n * kPitch; };
    const std::array<std::span<std::byte>, 2> parts = {
        std::span(memory_).first(part(first)),
        std::span(memory_).subspan(part(first) + 1024, part(second))};
    stream_->Begin(parts);
    ASSERT_EQ(stream_->buffers(), first + second);
  }

  bool Same(const KvStream::Place& place, uint64_t offset) {
    const Result<const std::byte*> got = stream_->Take(place);
    return got.ok() && *got != nullptr && std::memcmp(*got, &bytes_[offset], kLayerBytes) == 0;
  }

  const TempDir directory_;
  const std::string bytes_;
  std::vector<std::byte> memory_;
  std::unique_ptr<KvStream> stream_;
};

constexpr uint64_t PageOf(uint64_t i) { return i * kPitch + kLeadBytes; }

TEST_F(KvStreamTest, TakesWhatWasStartedInOrderAndForgetsTheRest) {
  EXPECT_FALSE(stream_->active());
  Begin(3, 5);
  ASSERT_TRUE(stream_->active());
  for (uint32_t i = 0; stream_->room() > 0; ++i) stream_->Start({1, 0, i}, PageOf(2 * i));
  EXPECT_TRUE(Same({1, 0, 0}, PageOf(0)));
  EXPECT_TRUE(Same({1, 0, 0}, PageOf(0))) << "it is in use until another one is asked for";
  EXPECT_EQ(*stream_->Take({1, 1, 0}), nullptr) << "was not asked for";
  EXPECT_TRUE(Same({1, 0, 2}, PageOf(4)));
  EXPECT_EQ(*stream_->Take({1, 0, 1}), nullptr) << "was left behind";
  EXPECT_EQ(stream_->room(), 2U);
  stream_->Start({1, 0, 9}, bytes_.size() - kReadAlignment + 16);  // ends behind the file
  const Result<const std::byte*> last = stream_->Take({1, 0, 9});
  EXPECT_EQ(last.status().code(), StatusCode::kDataLoss) << last.status().ToString();
  EXPECT_EQ(stream_->room(), 7U);
}

TEST_F(KvStreamTest, NeighboursInTheFileAndInMemoryAreReadAtOnce) {
  Begin(3, 17);
  stream_->BeginBatch();
  for (uint32_t i = 0; i < 8; ++i) stream_->Start({1, 0, i}, PageOf(10 + i));
  stream_->EndBatch();
  EXPECT_EQ(stream_->room(), 12U);
  for (uint32_t i = 0; i < 8; ++i) EXPECT_TRUE(Same({1, 0, i}, PageOf(10 + i))) << i;
  EXPECT_EQ(stream_->stats().reads, 2U) << "the parts of the memory lie apart";
  EXPECT_TRUE(Same({1, 0, 4}, PageOf(14))) << "as long as its read is in use";
  EXPECT_EQ(stream_->room(), 15U);
}

TEST_F(KvStreamTest, OthersAreReadByThemselves) {
  Begin(12, 2);
  stream_->BeginBatch();
  stream_->Start({1, 0, 0}, PageOf(20));
  stream_->Start({1, 0, 1}, PageOf(22));  // not behind it
  stream_->Start({1, 0, 2}, PageOf(23));  // behind it
  stream_->Start({2, 0, 3}, PageOf(24));  // of another sequence
  stream_->Start({2, 1, 4}, PageOf(25));  // of another layer
  stream_->Start({2, 1, 6}, PageOf(26));  // not the next block
  stream_->Start({2, 1, 7}, PageOf(27) + 1);
  stream_->EndBatch();
  EXPECT_TRUE(Same({1, 0, 0}, PageOf(20)));
  EXPECT_TRUE(Same({1, 0, 1}, PageOf(22)));
  EXPECT_TRUE(Same({1, 0, 2}, PageOf(23)));
  EXPECT_TRUE(Same({2, 0, 3}, PageOf(24)));
  EXPECT_TRUE(Same({2, 1, 4}, PageOf(25)));
  EXPECT_TRUE(Same({2, 1, 6}, PageOf(26)));
  EXPECT_TRUE(Same({2, 1, 7}, PageOf(27) + 1));
  EXPECT_EQ(stream_->stats().reads, 6U);
  // Outside of a batch nothing is kept back.
  stream_->Start({3, 0, 0}, PageOf(30));
  stream_->Start({3, 0, 1}, PageOf(31));
  EXPECT_TRUE(Same({3, 0, 0}, PageOf(30)));
  EXPECT_TRUE(Same({3, 0, 1}, PageOf(31)));
  EXPECT_EQ(stream_->stats().reads, 8U);
}

TEST_F(KvStreamTest, AFailedReadFailsEachOfItsBlocks) {
  Begin(17, 3);
  stream_->BeginBatch();
  for (uint32_t i = 0; i < 3; ++i) stream_->Start({1, 0, i}, PageOf(62 + i));  // 64: none
  stream_->EndBatch();
  EXPECT_EQ(stream_->Take({1, 0, 1}).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(stream_->Take({1, 0, 2}).status().code(), StatusCode::kDataLoss);
  stream_->Start({1, 1, 0}, PageOf(3));
  EXPECT_TRUE(Same({1, 1, 0}, PageOf(3))) << "and no others";
}

TEST_F(KvStreamTest, NoMoreReadsAreUnderWayThanTheReaderTakes) {
  Begin(100, 60);
  stream_->BeginBatch();
  uint32_t started = 0;
  for (; stream_->room() > 0; ++started) {
    stream_->Start({1, started, 0}, PageOf(started % 60));
    EXPECT_EQ(stream_->HalfFree(), started + 1 <= WeightReader::kMaxInFlight / 2);
  }
  stream_->EndBatch();
  EXPECT_EQ(started, WeightReader::kMaxInFlight);
  for (uint32_t i = 0; i < started; ++i) EXPECT_TRUE(Same({1, i, 0}, PageOf(i % 60))) << i;
  EXPECT_TRUE(stream_->HalfFree());
}

TEST_F(KvStreamTest, WhatIsReadAtOnceIsBounded) {
  Begin(48, 2);
  stream_->BeginBatch();
  for (uint32_t i = 0; i < 40; ++i) stream_->Start({1, 0, i}, PageOf(i));
  stream_->EndBatch();
  for (uint32_t i = 0; i < 40; ++i) EXPECT_TRUE(Same({1, 0, i}, PageOf(i))) << i;
  EXPECT_EQ(stream_->stats().reads, 4U) << "a quarter of the buffers each";
  Begin(160, 2);
  stream_->BeginBatch();
  for (uint32_t i = 0; i < 40; ++i) stream_->Start({2, 0, i}, PageOf(i));
  stream_->EndBatch();
  for (uint32_t i = 0; i < 40; ++i) EXPECT_TRUE(Same({2, 0, i}, PageOf(i))) << i;
  EXPECT_EQ(stream_->stats().reads, 4U + 2U) << "256 KiB and the rest";
}

TEST_F(KvStreamTest, TheRingOfBuffersGoesRoundWhateverIsSkipped) {
  Begin(17, 8);
  uint32_t started = 0;
  uint32_t taken = 0;
  for (uint32_t round = 0; round < 60; ++round) {
    stream_->BeginBatch();
    while (stream_->room() > 0) {
      stream_->Start({1, 0, started}, PageOf(started % 60));
      ++started;
    }
    stream_->EndBatch();
    taken += 1 + round % 5;  // some are never taken
    ASSERT_LT(taken, started);
    ASSERT_TRUE(Same({1, 0, taken}, PageOf(taken % 60))) << taken;
  }
  stream_->Forget();
  EXPECT_EQ(stream_->room(), 25U);
}

TEST_F(KvStreamTest, ABlockThatNoBufferHoldsIsNotStarted) {
  Begin(3, 3);
  stream_->Start({1, 0, 0}, 4000);  // three pages
  EXPECT_EQ(stream_->room(), 6U);
  EXPECT_EQ(*stream_->Take({1, 0, 0}), nullptr);
}

}  // namespace
}  // namespace thimble
