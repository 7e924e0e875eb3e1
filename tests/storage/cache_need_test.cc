#include "storage/cache_need.h"

#include <gtest/gtest.h>

#include "storage/base/bytes.h"
#include "tests/storage/kv_test_util.h"

namespace thimble {
namespace {

TEST(CacheNeed, OfSmolLm2IsWhatItsBlocksTake) {
  CacheNeed need;
  need.shape = {.n_layers = 30, .n_kv_heads = 3, .head_dim = 64};
  need.sequences = 4;
  need.context_tokens = 2048;
  need.vocab_size = 49152;
  // 256 blocks of 30 times 28,680 bytes are three quarters of it.
  EXPECT_EQ(CacheBytesNeeded(need), 281 * kMiB);
  need.sequences = 1;
  need.context_tokens = 31;
  EXPECT_EQ(CacheBytesNeeded(need), 8 * kMiB) << "the vocabulary, and a tail";
}

// As many sequences as were counted on, all at their full length in a cache of just that size.
TEST(CacheNeed, IsEnough) {
  for (const KvShape& shape :
       {kSmallShape, KvShape{3, 2, 120}, KvShape{1, 1, 4}, KvShape{24, 4, 32}}) {
    CacheNeed need;
    need.shape = shape;
    need.sequences = 4;
    need.context_tokens = 300;
    const uint64_t bytes = CacheBytesNeeded(need);
    const TempDir dir;
    const auto env = MustOpen(dir.path(), bytes);
    const auto kv = MustOpenKv(*env, KvQuota(bytes), shape);
    for (int round = 0; round < 3; ++round) {
      std::vector<KvSequence> open;
      for (uint32_t i = 0; i < need.sequences; ++i) {
        auto s = kv->OpenSequence({}, need.context_tokens);
        ASSERT_TRUE(s.ok());
        open.push_back(std::move(*s));
      }
      for (int32_t done = 0; done < 300; done += 20) {
        for (size_t i = 0; i < open.size(); ++i) {
          const int32_t first =
              100000 * static_cast<int32_t>(4 * round + static_cast<int>(i)) + done;
          ASSERT_OK(Pass(*kv, open[i], Prompt(20, first))) << shape.n_layers << " " << done;
        }
      }
      for (KvSequence& s : open) ASSERT_OK(kv->CloseSequence(s));
    }
  }
}

}  // namespace
}  // namespace thimble
