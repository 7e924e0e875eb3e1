// Keys and values with a place in RAM: the same bytes come back wherever a block lies, LMDB hears
// of full blocks alone, and what loses its place is not lost.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "storage/base/bytes.h"
#include "storage/encoding.h"
#include "storage/kv_pool.h"
#include "storage/kv_tail.h"
#include "tests/storage/kv_test_util.h"
#include "tests/storage/page_cache.h"

namespace thimble {
namespace {

constexpr uint32_t kBlock = kKvBlockTokens;

class KvRamTest : public testing::Test {
 protected:
  KvRamTest() {
    memory_ = static_cast<std::byte*>(std::aligned_alloc(4096, kMiB));
    std::memset(memory_, 0x5a, kMiB);
  }
  ~KvRamTest() override {
    kv_.reset();
    std::free(memory_);
  }
  KvRamTest(const KvRamTest&) = delete;
  KvRamTest& operator=(const KvRamTest&) = delete;

  // A cache with room in RAM for `slots` blocks.
  void Use(size_t slots) {
    slot_bytes_ = static_cast<size_t>(KvPool::SlotBytes(shape_));
    ram_ = {memory_, slots * slot_bytes_};
    ASSERT_LE(ram_.size(), kMiB);
    kv_ = MustOpenKv(*env_, 64 * kMiB, shape_);
    ASSERT_OK(kv_->UseRam(ram_));
  }

  KvSequence Open(std::span<const int32_t> tokens) {
    auto sequence = kv_->OpenSequence(tokens, 512);
    EXPECT_TRUE(sequence.ok());
    return std::move(*sequence);
  }

  // A pass as the runner makes it; what it reads back before its commit must be right.
  void RunPass(KvSequence& sequence, std::span<const int32_t> tokens,
               const std::byte* from = nullptr) {
    const KvPassRows rows = {&sequence, static_cast<uint32_t>(tokens.size())};
    ASSERT_OK(kv_->PlaceInRam({&rows, 1}, from == nullptr ? memory_ : from, memory_));
    ASSERT_OK(kv_->BringRows({&rows, 1}));
    ASSERT_OK(AppendAll(*kv_, sequence, tokens));
    for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
      ASSERT_EQ(CheckLayer(*kv_, sequence, tokens, layer), "");
    }
    ASSERT_OK(Commit(*kv_, sequence, tokens));
  }

  std::span<const int32_t> Part(size_t begin, size_t n) const {
    return std::span(tokens_).subspan(begin, n);
  }

  // Large enough for a slot to hold several layers' blocks on their way.
  const KvShape shape_ = {.n_layers = 4, .n_kv_heads = 2, .head_dim = 32};
  const std::vector<int32_t> tokens_ = Prompt(400);
  TempDir directory_;
  std::unique_ptr<LmdbEnv> env_ = MustOpen(directory_.path(), 128 * kMiB);
  std::unique_ptr<KvCache> kv_;
  std::byte* memory_ = nullptr;
  size_t slot_bytes_ = 0;
  std::span<std::byte> ram_;
};

TEST_F(KvRamTest, RowsOfABlockThatIsNotFullNeverReachTheDisk) {
  Use(4);
  KvSequence sequence = Open(tokens_);
  for (uint32_t i = 0; i + 1 < kBlock; ++i) RunPass(sequence, Part(i, 1));
  EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
  EXPECT_EQ(Entries(*env_, "kv_blocks"), 0U);
  RunPass(sequence, Part(kBlock - 1, 1));
  EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
  EXPECT_EQ(Entries(*env_, "kv_blocks"), shape_.n_layers);
  EXPECT_EQ(kv_->stats().blocks, 1U);
  EXPECT_EQ(kv_->stats().ram_blocks, 1U);
  ASSERT_OK(kv_->CloseSequence(sequence));
  EXPECT_EQ(kv_->stats().ram_blocks, 0U);
}

TEST_F(KvRamTest, WhatWasStoredFromRamIsThereForTheNextSequenceAndTheNextProcess) {
  Use(6);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, 70));
  ASSERT_OK(kv_->CloseSequence(sequence));
  KvSequence again = Open(tokens_);
  EXPECT_EQ(again.n_tokens, 2 * kBlock);
  RunPass(again, Part(64, 3));  // fills the copies
  EXPECT_EQ(kv_->stats().ram_blocks, 3U) << "two copies, and rows";
  EXPECT_FALSE(kv_->HasBlocksOutsideRam(again));
  RunPass(again, Part(67, 1));
  EXPECT_EQ(kv_->stats().ram_blocks, 3U);
  ASSERT_OK(kv_->CloseSequence(again));
  kv_.reset();
  kv_ = MustOpenKv(*env_, 64 * kMiB, shape_);
  KvSequence later = Open(tokens_);
  EXPECT_EQ(later.n_tokens, 2 * kBlock);
  EXPECT_EQ(CheckAll(*kv_, later), "");
  ASSERT_OK(kv_->CloseSequence(later));
}

TEST_F(KvRamTest, MoreBlocksThanPlacesComeBackRightInPassesOfAnySize) {
  for (const size_t slots : {1U, 2U, 3U, 5U}) {
    for (const size_t rows : {1U, 7U, 33U, 100U}) {
      SCOPED_TRACE(std::to_string(slots) + " slots, passes of " + std::to_string(rows));
      kv_.reset();
      TempDir directory;
      env_ = MustOpen(directory.path(), 128 * kMiB);
      Use(slots);
      KvSequence a = Open(tokens_);
      KvSequence b = Open(Part(200, 100));
      for (size_t at = 0; at < 200; at += rows) {
        RunPass(a, Part(at, std::min(rows, 200 - at)));
        if (at < 100) RunPass(b, Part(200 + at, std::min(rows, 100 - at)));
      }
      EXPECT_EQ(CheckAll(*kv_, a), "");
      EXPECT_EQ(CheckAll(*kv_, b), "");
      EXPECT_LE(kv_->stats().ram_blocks, slots);
      ASSERT_OK(kv_->CloseSequence(a));
      ASSERT_OK(kv_->CloseSequence(b));
      kv_.reset();
    }
  }
}

TEST_F(KvRamTest, APassThatNeedsTheMemoryLosesNothing) {
  Use(4);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, 2 * kBlock + 9));
  EXPECT_EQ(kv_->stats().ram_blocks, 3U);
  EXPECT_EQ(kv_->ram_begin(), memory_ + slot_bytes_);
  // Everything below the uppermost slot.
  const std::byte* from = memory_ + 3 * slot_bytes_;
  const KvPassRows rows = {&sequence, 1};
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, from, from));
  std::memset(memory_, 0x77, 3 * slot_bytes_);  // the pass's own values
  ASSERT_OK(kv_->BringRows({&rows, 1}));
  EXPECT_GE(kv_->ram_begin(), from);
  EXPECT_EQ(Entries(*env_, "kv_tails"), 9U * shape_.n_layers);
  ASSERT_OK(AppendAll(*kv_, sequence, Part(2 * kBlock + 9, 1)));
  EXPECT_EQ(CheckAll(*kv_, sequence, Part(2 * kBlock + 9, 1)), "");
  ASSERT_OK(Commit(*kv_, sequence, Part(2 * kBlock + 9, 1)));
  // The rows come back with the memory, and again after another such pass; so do the blocks.
  for (uint32_t at = 2 * kBlock + 10; at < 3 * kBlock + 5; ++at) {
    RunPass(sequence, Part(at, 1), at == 2 * kBlock + 20 ? from : nullptr);
    if (at == 2 * kBlock + 12 || at == 2 * kBlock + 22) {
      EXPECT_FALSE(kv_->AppendsToDisk(sequence, 1));
    }
  }
  EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
  EXPECT_EQ(kv_->stats().ram_blocks, 4U);
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  ASSERT_OK(kv_->CloseSequence(sequence));
}

TEST_F(KvRamTest, CopiesGiveWayInTheMiddleOfAPassAndRowsDoNot) {
  Use(4);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, 3 * kBlock + 9));
  ASSERT_EQ(kv_->stats().ram_blocks, 4U);
  const KvPassRows rows = {&sequence, 1};
  const auto one = Part(3 * kBlock + 9, 1);
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, memory_, memory_));
  ASSERT_OK(kv_->BringRows({&rows, 1}));
  ASSERT_OK(AppendAll(*kv_, sequence, one));
  uint64_t freed_bytes = 0;
  kv_->GiveWay(memory_ + ram_.size(), [&](std::span<std::byte> slot) {
    std::memset(slot.data(), 0x77, slot.size());
    freed_bytes += slot.size();
  });
  EXPECT_EQ(freed_bytes, 3 * slot_bytes_);
  EXPECT_EQ(kv_->stats().ram_blocks, 1U);
  EXPECT_EQ(CheckAll(*kv_, sequence, one), "") << "from LMDB";
  ASSERT_OK(Commit(*kv_, sequence, one));
  EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
  RunPass(sequence, Part(3 * kBlock + 10, 1));
  EXPECT_EQ(kv_->stats().ram_blocks, 4U) << "they come back";
  kv_->GiveWay(memory_ + 2 * slot_bytes_, [](std::span<std::byte>) {});
  EXPECT_EQ(kv_->stats().ram_blocks, 3U);
  ASSERT_OK(kv_->CloseSequence(sequence));
}

TEST_F(KvRamTest, RowsOfWhichOneIsMissingAreToldOfAndTheSlotIsFree) {
  Use(3);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, 9));
  const KvPassRows rows = {&sequence, 1};
  const std::byte* end = memory_ + ram_.size();
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, end, end));  // none is left
  ASSERT_EQ(Entries(*env_, "kv_tails"), 9U * shape_.n_layers);
  {
    const auto tails = env_->OpenDatabase("kv_tails");
    auto txn = env_->BeginWrite();
    ASSERT_TRUE(tails.ok() && txn.ok());
    ASSERT_TRUE(txn->Delete(*tails, KvTailKey(sequence.id, shape_.n_layers - 1, 4).bytes()).ok());
    ASSERT_OK(txn->Commit());
  }
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, memory_, memory_));
  ASSERT_OK(kv_->BringRows({&rows, 1}));
  EXPECT_EQ(kv_->stats().ram_blocks, 0U);
  EXPECT_EQ(CheckLayer(*kv_, sequence, {}, 0), "");
  EXPECT_NE(CheckLayer(*kv_, sequence, {}, shape_.n_layers - 1).find("missing"), std::string::npos);
  ASSERT_OK(kv_->CloseSequence(sequence));
}

TEST_F(KvRamTest, ALayersBlocksOfAPromptLieTogetherInTheFile) {
  Use(9);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, 5 * kBlock));
  const auto blocks = env_->OpenDatabase("kv_blocks");
  ASSERT_OK(blocks.status());
  const auto txn = env_->BeginRead();
  ASSERT_OK(txn.status());
  const uint64_t pitch = KvLayerFileBytes(shape_);
  size_t together = 0;
  for (uint16_t layer = 0; layer < shape_.n_layers; ++layer) {
    const std::byte* before = nullptr;
    for (const KvBlockName& name : sequence.blocks) {
      const auto value = txn->Get(*blocks, Key().Raw(name).U16(layer).bytes());
      ASSERT_TRUE(value.ok() && *value);
      together += before != nullptr && (*value)->data() == before + pitch ? 1 : 0;
      before = (*value)->data();
    }
  }
  // But where the tree has taken a page between them.
  EXPECT_GE(together, shape_.n_layers * 4 * 3 / 4);
  ASSERT_OK(kv_->CloseSequence(sequence));
}

// Blocks that are written push the page cache out; the vocabulary, which lies before them, is
// wanted with every token.
TEST_F(KvRamTest, WhatLayInTheFileBeforeIsKeptInThePageCacheWhereAsked) {
  if (IsTmpfs(directory_.path())) GTEST_SKIP() << "tmpfs is nothing but page cache";
  const auto vocabulary = env_->OpenDatabase("vocabulary");
  ASSERT_TRUE(vocabulary.ok());
  for (int i = 0; i < 200; ++i) {
    auto txn = env_->BeginWrite();
    ASSERT_TRUE(txn.ok());
    const std::string key = std::to_string(i);
    const std::string value = Pattern(2000, static_cast<unsigned>(i));
    ASSERT_OK(txn->Put(*vocabulary, AsBytes(key), AsBytes(value)));
    ASSERT_OK(txn->Commit());
  }
  ASSERT_OK(env_->Sync());
  const std::string file = env_->DataFile();
  const uint64_t before = *env_->UsedBytes();
  for (const bool keep : {true, false}) {
    ASSERT_EQ(InPageCache(file, before), before);
    Use(8);
    if (keep) kv_->KeepPageCache(before);
    const std::vector<int32_t> tokens = Prompt(4 * kBlock, keep ? 1 : 2);
    KvSequence sequence = Open(tokens);
    RunPass(sequence, tokens);
    ASSERT_OK(env_->Sync());
    RunPass(sequence, Part(0, 1));  // what was dirty then goes now
    if (keep) {
      EXPECT_GE(InPageCache(file, before), before * 9 / 10);
    } else {
      EXPECT_LE(InPageCache(file, before), before / 2);
    }
    ASSERT_OK(kv_->CloseSequence(sequence));
    kv_.reset();
  }
}

TEST_F(KvRamTest, RamThatIsTakenBackLosesNothing) {
  Use(3);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, kBlock + 5));
  ASSERT_OK(kv_->UseRam({}));
  std::memset(memory_, 0x77, kMiB);
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  ASSERT_OK(Pass(*kv_, sequence, Part(kBlock + 5, 40)));
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  ASSERT_OK(kv_->CloseSequence(sequence));
}

TEST_F(KvRamTest, RefusedDraftsInRamAreOverwritten) {
  Use(3);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, kBlock - 2));
  const std::vector<int32_t> drafts = Prompt(6, 9000);  // they complete the block
  const KvPassRows rows = {&sequence, 6};
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, memory_, memory_));
  ASSERT_OK(AppendAll(*kv_, sequence, drafts));
  ASSERT_OK(Commit(*kv_, sequence, std::span(drafts).first(1)));
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  EXPECT_EQ(kv_->stats().blocks, 0U);
  EXPECT_EQ(Entries(*env_, "kv_blocks"), 0U);
  RunPass(sequence, Part(kBlock - 1, 3));
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  EXPECT_EQ(kv_->stats().blocks, 1U);
  ASSERT_OK(kv_->CloseSequence(sequence));
}

// Rows that were guesses beside one another, across the end of a block.
TEST_F(KvRamTest, OfRowsThatWereGuessesThoseThatAreKeptBecomeTheNext) {
  Use(4);
  KvSequence sequence = Open(tokens_);
  RunPass(sequence, Part(0, 30));
  const std::vector<uint8_t> kept = {0, 2, 3, 6};
  std::vector<int32_t> guesses(7, 9999);
  for (size_t i = 0; i < kept.size(); ++i) guesses[kept[i]] = tokens_[30 + i];
  const KvPassRows rows = {&sequence, 7};
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, memory_, memory_));
  for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
    // As the kept ones have them at the positions to which they go.
    std::vector<uint16_t> halves(7 * shape_.RowHalves(), 0xffff);
    for (size_t i = 0; i < kept.size(); ++i) {
      const auto position = static_cast<uint32_t>(30 + i);
      const std::vector<uint16_t> row = Rows(shape_, layer, position, Part(position, 1));
      std::copy(row.begin(), row.end(),
                halves.begin() + static_cast<ptrdiff_t>(kept[i] * shape_.RowHalves()));
    }
    ASSERT_OK(kv_->AppendRows(sequence, layer, guesses, halves.data()));
  }
  kv_->KeepRows(sequence, kept);
  ASSERT_OK(Commit(*kv_, sequence, Part(30, 4)));
  EXPECT_EQ(kv_->stats().blocks, 1U);
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  RunPass(sequence, Part(34, 40));
  ASSERT_OK(kv_->CloseSequence(sequence));
  KvSequence next = Open(tokens_);
  EXPECT_EQ(next.n_tokens, 64U) << "under the names of the tokens that were kept";
  RunPass(next, Part(64, 5));
}

TEST_F(KvRamTest, AFullMapFailsThePassAndHarmsNoCommittedRow) {
  TempDir directory;
  env_ = MustOpen(directory.path(), 256 * kKiB);  // room for next to nothing
  Use(8);
  KvSequence sequence = Open(tokens_);
  Status status;
  uint32_t done = 0;
  for (; done < 320 && status.ok(); done += status.ok() ? kBlock : 0) {
    const KvPassRows rows = {&sequence, kBlock};
    ASSERT_OK(kv_->PlaceInRam({&rows, 1}, memory_, memory_));
    ASSERT_OK(AppendAll(*kv_, sequence, Part(done, kBlock)));
    status = Commit(*kv_, sequence, Part(done, kBlock));
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  EXPECT_EQ(sequence.n_tokens, done);
  EXPECT_EQ(CheckAll(*kv_, sequence), "");
  EXPECT_OK(kv_->CloseSequence(sequence));
}

TEST(KvPool, CopiesGiveWayToRowsAndToOtherCopiesOnlyWhenNotUsedForLong) {
  const KvShape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 8};
  alignas(64) std::array<std::byte, 4096> memory{};
  const auto slot_bytes = static_cast<size_t>(KvPool::SlotBytes(shape));
  KvPool pool(shape, std::span(memory).first(2 * slot_bytes));
  EXPECT_EQ(pool.begin(), memory.data() + 2 * slot_bytes);
  pool.BeginPass(memory.data(), memory.data());
  ASSERT_NE(pool.ClaimForCopy(1, 0), nullptr);
  EXPECT_EQ(pool.begin(), memory.data() + slot_bytes) << "from the end downwards";
  ASSERT_NE(pool.ClaimForRows(1, 1), nullptr);
  EXPECT_EQ(pool.begin(), memory.data());
  pool.BeginPass(memory.data(), memory.data());
  EXPECT_EQ(pool.ClaimForCopy(2, 0), nullptr) << "the copy was used a moment ago";
  KvPool::Slot* rows = pool.ClaimForRows(2, 0);
  ASSERT_NE(rows, nullptr) << "rows have nowhere else to go";
  EXPECT_EQ(pool.Find(1, 0), nullptr);
  EXPECT_EQ(pool.ClaimForRows(2, 1), nullptr) << "rows never give way";
  rows->holds = KvPool::Holds::kCopy;
  for (int pass = 0; pass < 20; ++pass) pool.BeginPass(memory.data(), memory.data());
  KvPool::Slot* copy = pool.ClaimForCopy(3, 0);
  ASSERT_NE(copy, nullptr);
  copy->holds = KvPool::Holds::kRows;
  pool.FreeSequence(1);
  pool.BeginPass(memory.data() + 1, memory.data() + 1);
  EXPECT_EQ(pool.ClaimForRows(3, 1), nullptr) << "the free slot is the pass's own";
}

TEST(KvPool, OfCopiesUsedAlikeTheOneNearestToTheBeginningGivesWay) {
  const KvShape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 8};
  alignas(64) std::array<std::byte, 4096> memory{};
  const auto slot_bytes = static_cast<size_t>(KvPool::SlotBytes(shape));
  KvPool pool(shape, std::span(memory).first(3 * slot_bytes));
  pool.BeginPass(memory.data(), memory.data());
  for (const uint32_t block : {4U, 1U, 3U}) ASSERT_NE(pool.ClaimForCopy(1, block), nullptr);
  ASSERT_NE(pool.ClaimForRows(1, 5), nullptr);
  EXPECT_EQ(pool.Find(1, 1), nullptr);
  ASSERT_NE(pool.Find(1, 3), nullptr);
  ASSERT_NE(pool.Find(1, 4), nullptr);
  // One that was not used for longer goes first all the same.
  pool.BeginPass(memory.data(), memory.data());
  pool.Find(1, 3)->pass = pool.pass();
  ASSERT_NE(pool.ClaimForRows(2, 0), nullptr);
  EXPECT_EQ(pool.Find(1, 4), nullptr);
  EXPECT_NE(pool.Find(1, 3), nullptr);
}

TEST(KvPool, RowsGetSureSlotsWhileThereAreSome) {
  const KvShape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 8};
  alignas(64) std::array<std::byte, 8192> memory{};
  const auto slot_bytes = static_cast<size_t>(KvPool::SlotBytes(shape));
  KvPool pool(shape, std::span(memory).first(4 * slot_bytes));
  const std::byte* sure = memory.data() + 2 * slot_bytes;
  pool.BeginPass(memory.data(), sure);
  for (const uint32_t block : {0U, 1U, 2U}) ASSERT_NE(pool.ClaimForCopy(1, block), nullptr);
  KvPool::Slot* rows = pool.ClaimForRows(1, 3);
  ASSERT_NE(rows, nullptr);
  EXPECT_GE(rows->memory, sure) << "a copy gives way, though another slot is free";
  rows = pool.ClaimForRows(2, 0);
  ASSERT_NE(rows, nullptr);
  EXPECT_GE(rows->memory, sure);
  rows = pool.ClaimForRows(3, 0);
  ASSERT_NE(rows, nullptr) << "any is better than none";
  EXPECT_LT(rows->memory, sure);
  pool.BeginPass(sure, memory.data());
  EXPECT_EQ(pool.ClaimForRows(4, 0), nullptr) << "the pass's own";
}

}  // namespace
}  // namespace thimble
