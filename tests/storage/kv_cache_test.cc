#include "storage/kv_cache.h"

#include <algorithm>

#include "storage/base/file.h"
#include "tests/storage/kv_test_util.h"

namespace thimble {
namespace {

constexpr uint64_t kMap = uint64_t{32} << 20;
constexpr uint64_t kQuota = uint64_t{16} << 20;

class KvCacheTest : public ::testing::Test {
 protected:
  void Reopen(uint64_t quota = kQuota, const KvShape& shape = kSmallShape,
              const Fingerprint& model = kModelA) {
    kv_.reset();
    env_.reset();
    env_ = MustOpen(dir_.path(), kMap);
    kv_ = MustOpenKv(*env_, quota, shape, model);
  }
  void SetUp() override { Reopen(); }

  KvSequence Start(std::span<const int32_t> prompt, uint32_t max_tokens = 512) {
    auto sequence = kv_->OpenSequence(prompt, max_tokens);
    if (!sequence.ok()) {
      ADD_FAILURE() << sequence.status().ToString();
      return {};
    }
    return std::move(sequence).value();
  }
  // A sequence of these tokens, computed where they are not in the cache.
  KvSequence Compute(std::span<const int32_t> tokens) {
    KvSequence sequence = Start(tokens);
    EXPECT_OK(Pass(*kv_, sequence, tokens.subspan(sequence.n_tokens)));
    return sequence;
  }

  TempDir dir_;
  std::unique_ptr<LmdbEnv> env_;
  std::unique_ptr<KvCache> kv_;
};

TEST_F(KvCacheTest, TokenByTokenGivesWhatWasWritten) {
  KvSequence s = Start({});
  const auto tokens = Prompt(100);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto one = std::span(tokens).subspan(i, 1);
    for (uint32_t layer = 0; layer < kSmallShape.n_layers; ++layer) {
      ASSERT_OK(AppendLayer(*kv_, s, layer, one));
      ASSERT_EQ(CheckLayer(*kv_, s, one, layer), "") << "before the commit of token " << i;
    }
    ASSERT_OK(Commit(*kv_, s, one));
    ASSERT_EQ(CheckAll(*kv_, s), "") << "after the commit of token " << i;
  }
  EXPECT_EQ(s.n_tokens, 100U);
  EXPECT_EQ(s.blocks.size(), 3U);
  EXPECT_EQ(kv_->stats().blocks, 3U);
  EXPECT_EQ(Entries(*env_, "kv_tails"), 4U * kSmallShape.n_layers);
}

TEST_F(KvCacheTest, AnyChunkingGivesTheSameBlocks) {
  const auto tokens = Prompt(150);
  std::vector<KvBlockName> names;
  for (const size_t chunk : {size_t{1}, size_t{7}, size_t{31}, size_t{32}, size_t{33}, size_t{64},
                             size_t{100}, size_t{150}}) {
    Reopen(kQuota, kSmallShape, {static_cast<uint8_t>(chunk)});  // a model of its own: no sharing
    KvSequence s = Start({});
    for (size_t i = 0; i < tokens.size(); i += chunk) {
      const auto part = std::span(tokens).subspan(i, std::min(chunk, tokens.size() - i));
      ASSERT_OK(AppendAll(*kv_, s, part));
      ASSERT_EQ(CheckAll(*kv_, s, part), "") << chunk;
      ASSERT_OK(Commit(*kv_, s, part));
    }
    ASSERT_EQ(CheckAll(*kv_, s), "") << chunk;
    EXPECT_EQ(s.blocks.size(), 4U);
    ASSERT_OK(kv_->CloseSequence(s));
    EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
  }
}

TEST_F(KvCacheTest, SeveralLayersMayShareOneTransaction) {
  KvSequence s = Start({});
  const auto tokens = Prompt(40);
  auto batch = env_->BeginWrite();
  ASSERT_TRUE(batch.ok());
  for (uint32_t layer = 0; layer < kSmallShape.n_layers; ++layer) {
    ASSERT_OK(AppendLayer(*kv_, s, layer, tokens, &*batch));
  }
  ASSERT_OK(batch->Commit());
  ASSERT_OK(Commit(*kv_, s, tokens));
  EXPECT_EQ(CheckAll(*kv_, s), "");
}

TEST_F(KvCacheTest, EqualPrefixesShareBlocksAndLeaveARowToCompute) {
  const auto tokens = Prompt(96);
  KvSequence a = Compute(tokens);
  const KvSequence whole = Start(tokens);
  EXPECT_EQ(whole.n_tokens, 64U) << "fewer than the prompt, also where all of it is there";
  auto longer = tokens;
  longer.push_back(5);
  const KvSequence b = Start(longer);
  EXPECT_EQ(b.n_tokens, 96U);
  EXPECT_EQ(b.blocks, a.blocks);
  EXPECT_EQ(CheckAll(*kv_, b), "");
  auto other = longer;
  other[40] = -1;
  KvSequence c = Start(other);
  EXPECT_EQ(c.n_tokens, 32U);
  ASSERT_OK(Pass(*kv_, c, std::span(other).subspan(32)));
  EXPECT_EQ(CheckAll(*kv_, c), "");
  EXPECT_EQ(CheckAll(*kv_, a), "");
  EXPECT_EQ(kv_->stats().blocks, 5U) << "3, and 2 after the difference";
  EXPECT_EQ(kv_->stats().prefix_hit_tokens, 64U + 96U + 32U);
  EXPECT_EQ(Start(std::span(tokens).first(32)).n_tokens, 0U);
  EXPECT_EQ(Start(std::span(tokens).first(33)).n_tokens, 32U);
}

TEST_F(KvCacheTest, ARestartKeepsBlocksAndRemovesTails) {
  const auto tokens = Prompt(70);
  (void)Compute(tokens);  // not closed, as after a crash
  EXPECT_GT(Entries(*env_, "kv_tails"), 0U);
  const KvCache::Stats before = kv_->stats();
  Reopen();
  EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
  EXPECT_EQ(kv_->stats().blocks, before.blocks);
  EXPECT_EQ(kv_->stats().bytes, before.bytes);
  KvSequence s = Start(tokens);
  EXPECT_EQ(s.n_tokens, 64U);
  EXPECT_EQ(CheckAll(*kv_, s), "");
  ASSERT_OK(Pass(*kv_, s, std::span(tokens).subspan(64)));
  EXPECT_EQ(CheckAll(*kv_, s), "");
}

TEST_F(KvCacheTest, AnotherModelOrShapeSharesNothing) {
  const auto tokens = Prompt(65);
  KvSequence s = Compute(tokens);
  ASSERT_OK(kv_->CloseSequence(s));
  Reopen(kQuota, kSmallShape, {9, 9});
  EXPECT_EQ(Start(tokens).n_tokens, 0U);
  for (const KvShape& shape : {KvShape{4, 2, 8}, KvShape{3, 4, 4}, KvShape{3, 1, 16}}) {
    Reopen(kQuota, shape);
    EXPECT_EQ(Start(tokens).n_tokens, 0U);
    EXPECT_EQ(kv_->stats().blocks, 2U) << "the other model's count towards the quota";
  }
  Reopen();
  EXPECT_EQ(Start(tokens).n_tokens, 64U);
}

TEST_F(KvCacheTest, QuantizedBlocksAreSmallerAndShareNothingWithThoseThatAreNot) {
  constexpr KvShape kHalves = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 64};
  KvShape quantized = kHalves;
  quantized.type = KvType::kQ8_0;
  EXPECT_EQ(quantized.VectorHalves() * 2, 68U);
  const auto tokens = Prompt(75);
  const auto keep = [&](const KvShape& shape) {
    Reopen(kQuota, shape);
    const uint64_t before = kv_->stats().bytes;
    KvSequence s = Start(tokens);
    EXPECT_EQ(s.n_tokens, 0U) << "shared with the other kind";
    EXPECT_TRUE(Pass(*kv_, s, tokens).ok());
    EXPECT_EQ(CheckAll(*kv_, s), "");
    EXPECT_TRUE(kv_->CloseSequence(s).ok());
    return kv_->stats().bytes - before;
  };
  const uint64_t as_halves = keep(kHalves);
  EXPECT_LT(keep(quantized), as_halves * 2 / 3) << "3 pages where it was 5";
  for (const KvShape& shape : {kHalves, quantized}) {
    Reopen(kQuota, shape);
    EXPECT_EQ(Start(tokens).n_tokens, 64U);
    EXPECT_EQ(kv_->stats().blocks, 4U);
  }
  const auto odd = KvCache::Open(
      *env_, kModelA,
      KvShape{.n_layers = 1, .n_kv_heads = 1, .head_dim = 40, .type = KvType::kQ8_0}, kQuota);
  EXPECT_EQ(odd.status().code(), StatusCode::kInvalidArgument);
}

// Forges what a collision of the hash would look like: a record of this name for other tokens.
TEST_F(KvCacheTest, ABlockOfOtherTokensUnderTheSameNameIsNotReusedButReplaced) {
  const auto tokens = Prompt(65);
  KvSequence s = Compute(tokens);
  const KvBlockName name = s.blocks[1];
  ASSERT_OK(kv_->CloseSequence(s));
  const auto forge = [&](size_t at) {
    const auto db = env_->OpenDatabase("kv_records");
    auto txn = env_->BeginWrite();
    const Bytes key = std::as_bytes(std::span(name));
    std::string record(AsText(**txn->Get(*db, key)));
    record[at] = static_cast<char>(record[at] ^ 1);
    return txn->Put(*db, key, AsBytes(record)).ok() && txn->Commit().ok();
  };
  for (const size_t at : {size_t{0}, size_t{16}, size_t{143}}) {  // parent, first and last token
    ASSERT_TRUE(forge(at));
    KvSequence again = Start(tokens);
    ASSERT_EQ(again.n_tokens, 32U) << at;
    ASSERT_OK(Pass(*kv_, again, std::span(tokens).subspan(32)));
    EXPECT_EQ(CheckAll(*kv_, again), "");
    EXPECT_EQ(kv_->stats().blocks, 2U);
    ASSERT_OK(kv_->CloseSequence(again));
    KvSequence full = Start(tokens);
    EXPECT_EQ(full.n_tokens, 64U) << at;
    ASSERT_OK(kv_->CloseSequence(full));
  }
}

TEST_F(KvCacheTest, RowsOfAnAbortedPassAreOverwritten) {
  KvSequence s = Start({});
  ASSERT_OK(Pass(*kv_, s, Prompt(20)));
  const auto lost = Prompt(30, 5000);
  ASSERT_OK(AppendLayer(*kv_, s, 0, lost));  // completes a block in the first two layers only
  ASSERT_OK(AppendLayer(*kv_, s, 1, lost));
  const auto kept = Prompt(50, 7000);
  ASSERT_OK(Pass(*kv_, s, kept));
  EXPECT_EQ(CheckAll(*kv_, s), "");
  EXPECT_EQ(Entries(*env_, "kv_blocks"), 2U * kSmallShape.n_layers) << "nothing of the lost block";
  ASSERT_OK(AppendLayer(*kv_, s, 0, lost));
  ASSERT_OK(kv_->CloseSequence(s));
  EXPECT_EQ(Entries(*env_, "kv_blocks"), 2U * kSmallShape.n_layers);
  EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
}

TEST_F(KvCacheTest, ABlockStaysWhileAnotherSequenceIsWritingIt) {
  const auto tokens = Prompt(32);
  KvSequence a = Start({});
  KvSequence b = Start({});
  ASSERT_OK(AppendLayer(*kv_, a, 0, tokens));
  ASSERT_OK(AppendAll(*kv_, b, tokens));
  ASSERT_OK(kv_->CloseSequence(a));  // cancelled after one layer
  EXPECT_EQ(CheckAll(*kv_, b, tokens), "");
  ASSERT_OK(Commit(*kv_, b, tokens));
  EXPECT_EQ(CheckAll(*kv_, b), "");
}

TEST_F(KvCacheTest, TwoSequencesMayCompleteTheSameBlock) {
  const auto tokens = Prompt(40);
  KvSequence a = Start({});
  KvSequence b = Start({});
  ASSERT_OK(AppendAll(*kv_, a, tokens));
  ASSERT_OK(AppendAll(*kv_, b, tokens));
  ASSERT_OK(Commit(*kv_, a, tokens));
  ASSERT_OK(Commit(*kv_, b, tokens));
  EXPECT_EQ(kv_->stats().blocks, 1U);
  ASSERT_OK(kv_->CloseSequence(a));
  EXPECT_EQ(CheckAll(*kv_, b), "");
}

TEST_F(KvCacheTest, FewerTokensThanAppendedMayBeCommitted) {
  for (const size_t accepted :
       {size_t{0}, size_t{1}, size_t{11}, size_t{12}, size_t{13}, size_t{44}, size_t{50}}) {
    KvSequence s = Start({});
    ASSERT_OK(Pass(*kv_, s, Prompt(20)));
    const auto drafts = Prompt(50, 5000);  // completes blocks 0 and 1
    ASSERT_OK(AppendAll(*kv_, s, drafts));
    ASSERT_OK(Commit(*kv_, s, std::span(drafts).first(accepted)));
    ASSERT_EQ(CheckAll(*kv_, s), "") << accepted;
    const auto next = Prompt(40, 9000);
    ASSERT_OK(Pass(*kv_, s, next));
    EXPECT_EQ(CheckAll(*kv_, s), "") << accepted;
    ASSERT_OK(kv_->CloseSequence(s));
    EXPECT_EQ(Entries(*env_, "kv_tails"), 0U);
    EXPECT_EQ(Entries(*env_, "kv_blocks"), kv_->stats().blocks * kSmallShape.n_layers);
  }
}

TEST_F(KvCacheTest, MisuseIsRefused) {
  KvSequence s = Start({}, 40);
  const auto tokens = Prompt(41);
  EXPECT_EQ(AppendLayer(*kv_, s, 0, tokens).code(), StatusCode::kOutOfRange);
  EXPECT_EQ(AppendLayer(*kv_, s, 3, std::span(tokens).first(1)).code(),
            StatusCode::kInvalidArgument);
  const auto block = std::span(tokens).first(32);
  ASSERT_OK(AppendLayer(*kv_, s, 0, block));
  ASSERT_OK(AppendLayer(*kv_, s, 2, block));
  const Status gap = Commit(*kv_, s, block);
  EXPECT_EQ(gap.code(), StatusCode::kFailedPrecondition) << gap.ToString();
  EXPECT_NE(gap.message().find("layer 1"), std::string::npos) << gap.message();
  EXPECT_EQ(s.n_tokens, 0U);
  ASSERT_OK(AppendLayer(*kv_, s, 1, block));
  ASSERT_OK(Commit(*kv_, s, block));
  EXPECT_EQ(kv_->OpenSequence(tokens, 40).status().code(), StatusCode::kInvalidArgument);
  const Fingerprint m = kModelA;
  EXPECT_EQ(KvCache::Open(*env_, m, {1, 0, 8}, 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(KvCache::Open(*env_, m, {0, 1, 8}, 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(KvCache::Open(*env_, m, {1, UINT32_MAX, UINT32_MAX}, 1).status().code(),
            StatusCode::kInvalidArgument);
  ASSERT_OK(kv_->CloseSequence(s));
  EXPECT_EQ(AppendLayer(*kv_, s, 0, block).code(), StatusCode::kInvalidArgument);
}

TEST_F(KvCacheTest, GeneratingDoesNotReallocateTheSequence) {
  KvSequence s = Start(Prompt(10), 200);
  const int32_t* const tokens = s.tokens.data();
  const KvBlockName* const blocks = s.blocks.data();
  const uint64_t* const offsets = s.offsets.data();
  const auto all = Prompt(200);
  for (size_t i = 0; i < 200; i += 8) {
    ASSERT_OK(Pass(*kv_, s, std::span(all).subspan(i, 8)));
    if (!s.blocks.empty()) {
      EXPECT_TRUE(kv_->FileOffset(s, 0, 0));
    }
  }
  EXPECT_EQ(s.offsets.size(), s.blocks.size() * kSmallShape.n_layers);
  EXPECT_EQ(s.offsets.data(), offsets);
  EXPECT_EQ(s.tokens.data(), tokens);
  EXPECT_EQ(s.blocks.data(), blocks);
}

TEST_F(KvCacheTest, OverTheQuotaTheLeastRecentlyUsedBlocksGoChildrenFirst) {
  const uint64_t block = [&] {
    KvSequence s = Compute(Prompt(32, 1));
    EXPECT_OK(kv_->CloseSequence(s));
    return kv_->stats().bytes;
  }();
  Reopen(block * 6);
  const auto a = Prompt(97, 1000);
  const auto b = Prompt(65, 2000);
  for (const auto& tokens : {a, b}) {  // 3 + 2 blocks, and the first of all
    KvSequence s = Compute(tokens);
    ASSERT_OK(kv_->CloseSequence(s));
  }
  EXPECT_EQ(kv_->stats().blocks, 6U);
  EXPECT_EQ(kv_->stats().evicted_blocks, 0U);
  KvSequence again = Start(b);  // b is in use: what goes is Prompt(32, 1), then a's end
  EXPECT_EQ(again.n_tokens, 64U);
  KvSequence c = Compute(Prompt(65, 3000));
  EXPECT_EQ(kv_->stats().evicted_blocks, 2U);
  EXPECT_EQ(kv_->stats().blocks, 6U);
  EXPECT_LE(kv_->stats().bytes, block * 6);
  KvSequence left = Start(a);
  EXPECT_EQ(left.n_tokens, 64U) << "the beginning of a is of more use than its end";
  EXPECT_EQ(CheckAll(*kv_, again), "");
  EXPECT_EQ(CheckAll(*kv_, c), "");
  EXPECT_EQ(CheckAll(*kv_, left), "");
  // All six blocks are in use now: one more is refused, and nobody is harmed.
  KvSequence d = Start({});
  const auto more = Prompt(32, 4000);
  const Status full = Pass(*kv_, d, more);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.ToString();
  EXPECT_EQ(d.n_tokens, 0U);
  EXPECT_EQ(CheckAll(*kv_, c), "");
  ASSERT_OK(kv_->CloseSequence(left));
  ASSERT_OK(Commit(*kv_, d, more));
  EXPECT_EQ(CheckAll(*kv_, d), "");
}

// Places are looked up once: they must stay true while other blocks are written, evicted, and their
// pages used again.
TEST_F(KvCacheTest, ABlockInUseStaysWhereItIsInTheFile) {
  const KvShape shape = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 64};
  Reopen(8 * KvBlockFileBytes(shape), shape);
  const auto check = [&](KvSequence& s, uint32_t layer, uint32_t block) -> uint64_t {
    const auto offset = kv_->FileOffset(s, layer, block);
    if (!offset) return 0;
    std::vector<uint16_t> halves(shape.BlockHalves());
    const auto file = OpenFile(env_->DataFile());
    EXPECT_OK((*file)->ReadAt(*offset, std::as_writable_bytes(std::span(halves))));
    for (size_t i = 0; i < halves.size(); ++i) {
      const auto at = static_cast<uint32_t>(i);
      const uint32_t d = at % shape.head_dim;
      const uint32_t position = block * kKvBlockTokens + at / shape.head_dim % kKvBlockTokens;
      const uint32_t piece = at / shape.head_dim / kKvBlockTokens;
      if (halves[i] != Half(layer, position, s.tokens[position], piece / 2, piece % 2, d)) return 0;
    }
    return *offset;
  };
  KvSequence kept = Compute(Prompt(65));
  std::vector<uint64_t> places;
  for (int32_t round = 0; round < 8; ++round) {
    KvSequence other = Compute(Prompt(97, 2000 + 1000 * round));
    for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
      for (uint32_t block = 0; block < 3; ++block) EXPECT_NE(check(other, layer, block), 0U);
      for (uint32_t block = 0; block < 2; ++block) {
        const uint64_t place = check(kept, layer, block);
        EXPECT_NE(place, 0U);
        if (round == 0) places.push_back(place);
        EXPECT_EQ(place, places[layer * 2 + block]);
      }
    }
    ASSERT_OK(kv_->CloseSequence(other));
  }
  EXPECT_GT(kv_->stats().evicted_blocks, 0U);
  // Blocks that share their pages with others move.
  Reopen(kQuota, {.n_layers = 3, .n_kv_heads = 1, .head_dim = 8});
  KvSequence narrow = Compute(Prompt(65));
  EXPECT_FALSE(kv_->FileOffset(narrow, 0, 0));
}

}  // namespace
}  // namespace thimble
