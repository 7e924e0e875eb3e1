// What the KV cache does when the map or the disk is full, and when the process is killed.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/storage/kv_test_util.h"

namespace thimble {
namespace {

// Blocks of 3 x 8 pages of 4 KiB: about 100 KiB each.
constexpr KvShape kWideShape = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 120};

TEST(KvFaults, AFullMapIsMetByEvictingAndOtherSequencesGoOn) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{2} << 20);
  const auto kv = MustOpenKv(*env, uint64_t{1} << 30, kWideShape);  // the map is full first
  auto opened = kv->OpenSequence({}, 512);
  ASSERT_TRUE(opened.ok());
  KvSequence keeper = std::move(*opened);
  ASSERT_OK(Pass(*kv, keeper, Prompt(70, 1)));
  for (int32_t i = 0; i < 60; ++i) {  // several times the map
    auto s = kv->OpenSequence({}, 512);
    ASSERT_TRUE(s.ok());
    ASSERT_OK(Pass(*kv, *s, Prompt(70, 1000 * (i + 1)))) << i;
    ASSERT_EQ(CheckAll(*kv, *s), "");
    ASSERT_OK(kv->CloseSequence(*s));
  }
  EXPECT_GT(kv->stats().evicted_blocks, 50U);
  EXPECT_EQ(CheckAll(*kv, keeper), "");
}

TEST(KvFaults, WhereAllBlocksAreInUseAFullMapFailsTheOneAndSparesTheOthers) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{2} << 20);
  const auto kv = MustOpenKv(*env, uint64_t{1} << 30, kWideShape);
  std::vector<KvSequence> open;
  Status status;
  while (status.ok() && open.size() < 100) {
    auto s = kv->OpenSequence({}, 512);
    ASSERT_TRUE(s.ok());
    open.push_back(std::move(*s));
    status = Pass(*kv, open.back(), Prompt(40, 1000 * static_cast<int32_t>(open.size())));
  }
  ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  ASSERT_GT(open.size(), 5U);
  EXPECT_EQ(open.back().n_tokens, 0U);
  for (size_t i = 0; i + 1 < open.size(); ++i) EXPECT_EQ(CheckAll(*kv, open[i]), "") << i;
  EXPECT_OK(kv->CloseSequence(open.back()));
  EXPECT_OK(kv->CloseSequence(open[0]));
  EXPECT_OK(kv->CloseSequence(open[1]));
  // The places of the two serve another, and those still open generate on.
  EXPECT_OK(Pass(*kv, open[2], Prompt(10, 77)));
  auto s = kv->OpenSequence({}, 512);
  ASSERT_TRUE(s.ok());
  EXPECT_OK(Pass(*kv, *s, Prompt(33, 900000)));
  EXPECT_EQ(CheckAll(*kv, *s), "");
  for (size_t i = 2; i + 1 < open.size(); ++i) EXPECT_EQ(CheckAll(*kv, open[i]), "") << i;
}

TEST(KvFaults, WhatIsPreparedStaysWhereAnotherSequenceOfThePassFindsTheQuotaFull) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{16} << 20);
  const auto kv = MustOpenKv(*env, 150 * 1024, kWideShape);  // one block
  auto a = kv->OpenSequence({}, 512);
  auto b = kv->OpenSequence({}, 512);
  ASSERT_TRUE(a.ok() && b.ok());
  const auto tokens_a = Prompt(40, 1);
  const auto tokens_b = Prompt(40, 1000);
  ASSERT_OK(AppendAll(*kv, *a, tokens_a));
  ASSERT_OK(AppendAll(*kv, *b, tokens_b));
  ASSERT_OK(kv->PrepareRows(*a, tokens_a));
  const Status full = kv->PrepareRows(*b, tokens_b);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.ToString();
  EXPECT_EQ(a->n_tokens, 0U);
  EXPECT_EQ(b->n_tokens, 0U);
  // The pass is given up; the first sequence goes on alone, the second ends.
  ASSERT_OK(Pass(*kv, *a, tokens_a));
  EXPECT_EQ(CheckAll(*kv, *a), "");
  EXPECT_OK(kv->CloseSequence(*b));
  EXPECT_EQ(kv->stats().blocks, 1U);
}

// A limit on the size of files stands for a full disk.
TEST(KvFaults, AFullDiskFailsTheOneAndTheCacheGoesOn) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{64} << 20);
  const auto kv = MustOpenKv(*env, uint64_t{1} << 30, kWideShape);
  auto opened = kv->OpenSequence({}, 512);
  ASSERT_TRUE(opened.ok());
  KvSequence keeper = std::move(*opened);
  ASSERT_OK(Pass(*kv, keeper, Prompt(40, 1)));
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit limit = {2 << 20, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);

  // Closed ones are evicted in its stead ...
  for (int32_t i = 0; i < 30; ++i) {
    auto s = kv->OpenSequence({}, 512);
    ASSERT_TRUE(s.ok());
    EXPECT_OK(Pass(*kv, *s, Prompt(70, 1000 * (i + 1)))) << i;
    EXPECT_OK(kv->CloseSequence(*s));
  }
  EXPECT_GT(kv->stats().evicted_blocks, 10U);
  // ... and where all are open, the one fails.
  std::vector<KvSequence> open;
  Status status;
  while (status.ok() && open.size() < 100) {
    auto s = kv->OpenSequence({}, 512);
    ASSERT_TRUE(s.ok());
    open.push_back(std::move(*s));
    status = Pass(*kv, open.back(), Prompt(40, 100000 * static_cast<int32_t>(open.size())));
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  for (KvSequence& s : open) {
    EXPECT_EQ(CheckAll(*kv, s), "");  // of the one that failed: its nothing
    EXPECT_OK(kv->CloseSequence(s));
  }
  EXPECT_OK(Pass(*kv, keeper, Prompt(10, 500)));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(CheckAll(*kv, keeper), "");
}

TEST(KvFaults, AfterAKillTheCacheOpensAndWhatItReusesIsRight) {
  const TempDir dir;
  for (int round = 0; round < 5; ++round) {
    int progress[2];
    ASSERT_EQ(::pipe(progress), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const auto env = MustOpen(dir.path(), uint64_t{8} << 20);
      const auto kv = MustOpenKv(*env, uint64_t{4} << 20);
      for (int32_t i = 0;; ++i) {
        auto s = kv->OpenSequence({}, 512);
        // Four passes, some of whose blocks are there already, evicting all the while.
        for (int32_t p = 0; s.ok() && p < 4; ++p) {
          if (!Pass(*kv, *s, Prompt(25, 1000 * (i % 300) + 100 * p)).ok()) ::_exit(1);
        }
        if (!s.ok() || !kv->CloseSequence(*s).ok()) ::_exit(1);
        if (::write(progress[1], &i, sizeof i) != sizeof i) ::_exit(1);
      }
    }
    ::close(progress[1]);
    for (int32_t i = 0; i < 20 + 31 * round;) ASSERT_EQ(::read(progress[0], &i, sizeof i), 4);
    ::usleep(static_cast<useconds_t>(700 * round));  // not at the same point every time
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child found an error";
    ::close(progress[0]);

    const auto env = MustOpen(dir.path(), uint64_t{8} << 20);
    const auto kv = MustOpenKv(*env, uint64_t{4} << 20);
    EXPECT_EQ(Entries(*env, "kv_blocks"), kv->stats().blocks * kSmallShape.n_layers);
    EXPECT_EQ(Entries(*env, "kv_used"), kv->stats().blocks);
    size_t reused = 0;
    for (int32_t i = 0; i < 300; ++i) {
      std::vector<int32_t> prompt;
      for (int32_t p = 0; p < 4; ++p) {
        const auto part = Prompt(25, 1000 * i + 100 * p);
        prompt.insert(prompt.end(), part.begin(), part.end());
      }
      auto s = kv->OpenSequence(prompt, 512);
      ASSERT_TRUE(s.ok());
      reused += s->n_tokens;
      ASSERT_EQ(CheckAll(*kv, *s), "");
      ASSERT_OK(kv->CloseSequence(*s));
    }
    EXPECT_GT(reused, 0U);
  }
}

}  // namespace
}  // namespace thimble
