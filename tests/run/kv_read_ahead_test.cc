// Reading ahead of attention: only after waits were seen, in a pass's order, and what was asked for
// does come into the page cache.
#include "daemon/run/kv_read_ahead.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "daemon/run/attention.h"
#include "storage/base/bytes.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

constexpr KvShape kShape = {.n_layers = 4, .n_kv_heads = 3, .head_dim = 64};
constexpr uint32_t kBlocks = 3;

class KvReadAheadTest : public testing::Test {
 protected:
  void SetUp() override {
    auto kv = KvCache::Open(*env_, {1}, kShape, 64 * kMiB);
    ASSERT_OK(kv.status());
    kv_ = std::move(*kv);
    std::vector<int32_t> tokens(kBlocks * kKvBlockTokens);
    std::iota(tokens.begin(), tokens.end(), 5);
    auto sequence = kv_->OpenSequence(tokens, 512);
    ASSERT_OK(sequence.status());
    sequence_ = std::move(*sequence);
    const std::vector<uint16_t> rows(tokens.size() * kShape.RowHalves(), 0x3c00);
    for (uint32_t layer = 0; layer < kShape.n_layers; ++layer) {
      ASSERT_OK(kv_->AppendRows(sequence_, layer, tokens, rows.data()));
    }
    ASSERT_OK(kv_->PrepareRows(sequence_, tokens));
    kv_->CommitRows(sequence_, tokens);
    ActiveItem item;
    item.item.sequence = &sequence_;
    items_.push_back(item);
    ASSERT_OK(env_->DropPageCache());
  }

  // How many pages of a block are in the page cache, after waiting up to `wait` for all of them.
  size_t PagesInCache(uint32_t layer, uint32_t block, std::chrono::milliseconds wait) {
    auto reader = KvCache::Reader::Begin(*kv_);
    EXPECT_TRUE(reader.ok());
    KvHeadBlock head;
    std::vector<uint16_t> scratch(2 * kKvBlockTokens * kShape.head_dim);
    EXPECT_OK(
        reader->Head(sequence_, {}, layer, block, sequence_.n_tokens, 0, scratch.data(), &head));
    const auto page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    const uintptr_t first = reinterpret_cast<uintptr_t>(head.keys) / page_bytes * page_bytes;
    const size_t bytes = kShape.BlockHalves() * sizeof(uint16_t);
    std::vector<unsigned char> in_cache(bytes / page_bytes);
    size_t n = 0;
    for (const auto end = std::chrono::steady_clock::now() + wait;;) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      EXPECT_EQ(::mincore(reinterpret_cast<void*>(first), bytes, in_cache.data()), 0);
      n = 0;
      for (const unsigned char page : in_cache) n += page & 1U;
      if (n == in_cache.size() || std::chrono::steady_clock::now() > end) return n;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  void Advance(KvReadAhead* ahead, uint32_t layer, uint32_t block) {
    auto reader = KvCache::Reader::Begin(*kv_);
    ASSERT_TRUE(reader.ok());
    ahead->Advance(items_, layer, 0, block, *kv_, *reader);
  }

  TempDir directory_;
  std::unique_ptr<LmdbEnv> env_ = MustOpen(directory_.path(), 128 * kMiB);
  std::unique_ptr<KvCache> kv_;
  KvSequence sequence_;
  std::vector<ActiveItem> items_;
};

constexpr size_t kBlockPages = 6;  // 24 KiB

TEST_F(KvReadAheadTest, BringsTheBlocksBehindAttentionIntoThePageCache) {
  KvReadAhead ahead;
  ahead.BeginPass(KvReadAhead::kWaits);
  ASSERT_TRUE(ahead.active());
  ASSERT_LT(PagesInCache(2, 1, std::chrono::milliseconds(0)), kBlockPages) << "was dropped";
  // 256 KiB ahead are 10 blocks, all but the last two of the 12.
  Advance(&ahead, 0, 0);
  EXPECT_EQ(PagesInCache(2, 1, std::chrono::seconds(10)), kBlockPages);
  EXPECT_EQ(PagesInCache(0, 2, std::chrono::seconds(10)), kBlockPages);
  EXPECT_LT(PagesInCache(3, 2, std::chrono::milliseconds(20)), kBlockPages) << "too far ahead";
  Advance(&ahead, 0, 1);
  Advance(&ahead, 0, 2);
  EXPECT_EQ(PagesInCache(3, 2, std::chrono::seconds(10)), kBlockPages);
}

TEST_F(KvReadAheadTest, AsksForNothingWhereNothingWaits) {
  KvReadAhead ahead;
  ahead.BeginPass(KvReadAhead::kWaits - 1);
  EXPECT_FALSE(ahead.active());
  const size_t before = PagesInCache(2, 1, std::chrono::milliseconds(0));
  ASSERT_LT(before, kBlockPages);
  Advance(&ahead, 0, 0);
  EXPECT_EQ(PagesInCache(2, 1, std::chrono::milliseconds(50)), before);
}

TEST_F(KvReadAheadTest, TriesWithoutNowAndThen) {
  KvReadAhead ahead;
  uint64_t waits = KvReadAhead::kWaits;
  ahead.BeginPass(waits);
  for (uint32_t pass = 1; pass < KvReadAhead::kPasses; ++pass) {
    ahead.BeginPass(waits);
    ASSERT_TRUE(ahead.active()) << pass;
  }
  ahead.BeginPass(waits);
  EXPECT_FALSE(ahead.active());
  ahead.BeginPass(waits += KvReadAhead::kWaits);
  EXPECT_TRUE(ahead.active());
}

TEST_F(KvReadAheadTest, GoesPastDroppedItems) {
  KvReadAhead ahead;
  ahead.BeginPass(KvReadAhead::kWaits);
  items_.insert(items_.begin(), ActiveItem{});
  items_[0].dropped = true;
  auto reader = KvCache::Reader::Begin(*kv_);
  ASSERT_TRUE(reader.ok());
  ahead.Advance(items_, 0, 1, 0, *kv_, *reader);
  EXPECT_EQ(PagesInCache(1, 0, std::chrono::seconds(10)), kBlockPages);
}

}  // namespace
}  // namespace thimble
