#include "storage/lmdb.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <vector>

#include "storage/encoding.h"
#include "tests/storage/page_cache.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

constexpr uint64_t kMap = uint64_t{4} << 20;

Status PutOne(LmdbEnv& env, MDB_dbi db, std::string_view key, std::string_view value) {
  THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env.BeginWrite());
  THIMBLE_RETURN_IF_ERROR(txn.Put(db, AsBytes(key), AsBytes(value)));
  return txn.Commit();
}

std::string GetOne(LmdbEnv& env, MDB_dbi db, std::string_view key) {
  auto txn = env.BeginRead();
  if (!txn.ok()) return "error";
  const auto value = txn->Get(db, AsBytes(key));
  if (!value.ok()) return "error";
  return value->has_value() ? std::string(AsText(**value)) : "none";
}

TEST(Lmdb, WhatWasCommittedIsThereAfterReopeningWithALargerMap) {
  const TempDir dir;
  {
    const auto env = MustOpen(dir.path() + "/a/b/env", kMap);
    const auto db = env->OpenDatabase("d");
    ASSERT_TRUE(db.ok());
    ASSERT_OK(PutOne(*env, *db, "k", "v"));
  }
  struct stat st {};
  ASSERT_EQ(::stat((dir.path() + "/a").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700U);
  const auto env = MustOpen(dir.path() + "/a/b/env", 4 * kMap);
  EXPECT_EQ(env->map_bytes(), 4 * kMap);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  EXPECT_EQ(GetOne(*env, *db, "k"), "v");
  const std::string big(64 * 1024, 'x');
  for (int i = 0; i < 100; ++i) ASSERT_OK(PutOne(*env, *db, "big" + std::to_string(i), big));
  const auto used = env->UsedBytes();
  ASSERT_TRUE(used.ok());
  EXPECT_GT(*used, kMap);
  EXPECT_LE(*used, 4 * kMap);
}

TEST(Lmdb, ATransactionThatEndsWithoutCommitChangesNothing) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  {
    auto txn = env->BeginWrite();
    ASSERT_TRUE(txn.ok());
    ASSERT_OK(txn->Put(*db, AsBytes("k"), AsBytes("v")));
    LmdbTxn moved = std::move(*txn);
    EXPECT_TRUE(moved.open());
    EXPECT_FALSE(txn->open());  // NOLINT(bugprone-use-after-move): that it is empty is the point
  }
  EXPECT_EQ(GetOne(*env, *db, "k"), "none");
  ASSERT_OK(PutOne(*env, *db, "k", "w"));
  EXPECT_EQ(GetOne(*env, *db, "k"), "w");
}

TEST(Lmdb, ASecondWriterIsAnErrorAndNotADeadlock) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  auto first = env->BeginWrite();
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(env->BeginWrite().status().code(), StatusCode::kInternal);
  first->Abort();
  EXPECT_TRUE(env->BeginWrite().ok());
}

TEST(Lmdb, ScanBeforeCountAndDeleteFollowTheOrderOfKeys) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), kMap);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  auto txn = env->BeginWrite();
  ASSERT_TRUE(txn.ok());
  for (const uint32_t i : {300U, 2U, 70000U}) {
    const auto room = txn->PutReserved(*db, Key().U32(i).bytes(), 1);
    ASSERT_TRUE(room.ok());
    (*room)[0] = static_cast<std::byte>(i);
  }
  std::vector<uint64_t> seen;
  const auto all = [&](Bytes key, Bytes) {
    seen.push_back(KeyNumber(key, 0, 4));
    return true;
  };
  ASSERT_OK(txn->Scan(*db, {}, all));
  EXPECT_EQ(seen, (std::vector<uint64_t>{2, 300, 70000}));
  seen.clear();
  ASSERT_OK(txn->Scan(*db, Key().U32(3).bytes(), all));
  EXPECT_EQ(seen, (std::vector<uint64_t>{300, 70000}));
  const auto before = [&](uint32_t key) {
    const auto entry = txn->Before(*db, Key().U32(key).bytes());
    return entry.ok() && entry->has_value() ? KeyNumber((*entry)->key, 0, 4) : 0;
  };
  EXPECT_EQ(before(2), 0U);
  EXPECT_EQ(before(300), 2U);
  EXPECT_EQ(before(301), 300U);
  EXPECT_EQ(before(UINT32_MAX), 70000U);
  EXPECT_EQ(txn->Count(*db).value(), 3U);
  EXPECT_TRUE(txn->Delete(*db, Key().U32(300).bytes()).value());
  EXPECT_FALSE(txn->Delete(*db, Key().U32(300).bytes()).value());
  ASSERT_OK(txn->Clear(*db));
  EXPECT_EQ(txn->Count(*db).value(), 0U);
  EXPECT_EQ(before(UINT32_MAX), 0U);
}

TEST(Lmdb, ASecondOwnerOfADirectoryIsRefusedWithTheHoldersPid) {
  const TempDir dir;
  auto env = MustOpen(dir.path(), kMap);
  const auto second = LmdbEnv::Open(dir.path(), {.map_bytes = kMap});
  ASSERT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("pid " + std::to_string(::getpid())), std::string::npos)
      << second.status().message();
  env.reset();
  EXPECT_TRUE(LmdbEnv::Open(dir.path(), {.map_bytes = kMap}).ok());
}

TEST(Lmdb, AFullMapIsResourceExhaustedAndCanBeEmptiedAndFilledAgain) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{256} << 10);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  size_t first_round = 0;
  for (int round = 0; round < 3; ++round) {
    Status status;
    size_t n = 0;
    // Small values, so that the map is full to its last page, and even removal needs a reserve.
    for (; status.ok() && n < 5000; ++n) {
      status = PutOne(*env, *db, std::to_string(n), std::string(300, 'x'));
    }
    ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
    if (round == 0) first_round = n;
    EXPECT_GT(n, first_round / 2);
    EXPECT_EQ(GetOne(*env, *db, "1"), std::string(300, 'x'));
    for (size_t i = 0; i < n; ++i) {
      ASSERT_OK(env->Remove(
          [&](LmdbTxn& txn) { return txn.Delete(*db, AsBytes(std::to_string(i))).status(); }));
    }
  }
  ASSERT_OK(PutOne(*env, *db, "k", "v"));
  EXPECT_LE(env->UsedBytes().value(), env->map_bytes() + LmdbEnv::kRemovalBytes);
}

TEST(Lmdb, RemovalGetsAReserveWhereAnOrdinaryTransactionIsRefused) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{128} << 10);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  const std::string big(uint64_t{200} << 10,
                        'x');  // larger than the map: only the reserve has room
  EXPECT_EQ(PutOne(*env, *db, "k", big).code(), StatusCode::kResourceExhausted);
  ASSERT_OK(env->Remove([&](LmdbTxn& txn) { return txn.Put(*db, AsBytes("k"), AsBytes(big)); }));
  EXPECT_EQ(GetOne(*env, *db, "k"), big);
  ASSERT_OK(env->Remove([&](LmdbTxn& txn) { return txn.Delete(*db, AsBytes("k")).status(); }));
  auto reader = env->BeginRead();
  ASSERT_TRUE(reader.ok());
  // With a reader open the map must stay where it is: no reserve, no crash.
  const Status refused = env->Remove(
      [&](LmdbTxn& txn) { return txn.Put(*db, AsBytes("l"), AsBytes(std::string(3 << 20, 'x'))); });
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
}

// A limit on the size of files stands for a full disk: the kernel cuts the write short in the same
// way.
TEST(Lmdb, ADiskThatIsFullIsResourceExhaustedAndTheEnvironmentGoesOn) {
  const TempDir dir;
  const auto env = MustOpen(dir.path(), uint64_t{64} << 20);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  ASSERT_OK(PutOne(*env, *db, "first", "v"));
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit limit = {(1 << 20) + 1000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  Status status;
  int n = 0;
  for (; status.ok() && n < 1000; ++n) {
    status = PutOne(*env, *db, std::to_string(n), std::string(30000, 'x'));
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  EXPECT_EQ(GetOne(*env, *db, "0"), std::string(30000, 'x'));
  for (int i = 0; i < n; ++i) {
    EXPECT_OK(env->Remove(
        [&](LmdbTxn& txn) { return txn.Delete(*db, AsBytes(std::to_string(i))).status(); }));
  }
  // The pages of what was removed need no new room on the disk.
  for (int i = 0; i < n / 2; ++i) {
    EXPECT_OK(PutOne(*env, *db, std::to_string(i), std::string(30000, 'y')));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(GetOne(*env, *db, "first"), "v");
  EXPECT_EQ(GetOne(*env, *db, "0"), std::string(30000, 'y'));
}

TEST(Lmdb, AFileThatIsNoEnvironmentIsDataLoss) {
  const TempDir dir;
  std::ofstream(dir.path() + "/data.mdb") << std::string(65536, 'x');
  const auto env = LmdbEnv::Open(dir.path(), {.map_bytes = kMap});
  EXPECT_EQ(env.status().code(), StatusCode::kDataLoss) << env.status().ToString();
}

TEST(Lmdb, AFileCutShortIsAnErrorAndNotASignal) {
  const TempDir dir;
  {
    const auto env = MustOpen(dir.path(), kMap);
    const auto db = env->OpenDatabase("d");
    ASSERT_TRUE(db.ok());
    for (int i = 0; i < 200; ++i) {
      ASSERT_OK(PutOne(*env, *db, "key" + std::to_string(i), std::string(1000, 'x')));
    }
  }
  // Two meta pages are left: everything they point to is gone.
  ASSERT_EQ(::truncate((dir.path() + "/data.mdb").c_str(), 2 * ::sysconf(_SC_PAGESIZE)), 0);
  const auto env = LmdbEnv::Open(dir.path(), {.map_bytes = kMap});
  if (!env.ok()) return;
  const auto db = (*env)->OpenDatabase("d");
  EXPECT_EQ(db.status().code(), StatusCode::kDataLoss) << db.status().ToString();
}

TEST(Lmdb, DropPageCacheLeavesNothingThatWasReadInRam) {
  const TempDir dir;
  if (IsTmpfs(dir.path())) GTEST_SKIP() << "tmpfs is nothing but page cache";
  const auto env = MustOpen(dir.path(), kMap);
  const auto db = env->OpenDatabase("d");
  ASSERT_TRUE(db.ok());
  for (int i = 0; i < 400; ++i) {
    ASSERT_OK(PutOne(*env, *db, "key" + std::to_string(i), std::string(2000, 'x')));
  }
  for (int i = 0; i < 400; ++i) {  // through the map
    ASSERT_EQ(GetOne(*env, *db, "key" + std::to_string(i)).size(), 2000);
  }
  const std::string file = dir.path() + "/data.mdb";
  EXPECT_GT(InPageCache(file), 500'000);
  ASSERT_OK(env->Sync());
  env->ReleasePageCache(200'000);
  EXPECT_GT(InPageCache(file), 150'000) << "the beginning is kept";
  EXPECT_LT(InPageCache(file), 350'000);
  ASSERT_OK(env->DropPageCache());
  EXPECT_LT(InPageCache(file), 100'000);
  EXPECT_EQ(GetOne(*env, *db, "key7").size(), 2000) << "it comes back from the file";
}

TEST(Lmdb, ErrorsNameOperationAndPath) {
  const Status status = LmdbError(MDB_MAP_FULL, "write", "/var/lib/thimble/cache");
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message().find("write /var/lib/thimble/cache: "), 0U) << status.message();
  EXPECT_EQ(LmdbError(ENOSPC, "a", "b").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(LmdbError(EFBIG, "a", "b").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(LmdbError(MDB_CORRUPTED, "a", "b").code(), StatusCode::kDataLoss);
  EXPECT_EQ(LmdbError(MDB_PANIC, "a", "b").code(), StatusCode::kInternal);
  EXPECT_EQ(LmdbError(EIO, "a", "b").code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace thimble
