#include "storage/state_dir.h"

#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

class StateDirTest : public ::testing::Test {
 protected:
  void SetBoot(const std::string& id) { std::ofstream(boot_id_) << id << "\n"; }
  Result<StateDir> Open() {
    return StateDir::Open(state_, {.journal_bytes = uint64_t{1} << 20,
                                   .cache_bytes = uint64_t{4} << 20,
                                   .boot_id_path = boot_id_});
  }
  static void Put(LmdbEnv& env, const std::string& value) {
    const auto db = env.OpenDatabase("d");
    ASSERT_TRUE(db.ok()) << db.status().ToString();
    auto txn = env.BeginWrite();
    ASSERT_TRUE(txn.ok());
    ASSERT_OK(txn->Put(*db, AsBytes("k"), AsBytes(value)));
    ASSERT_OK(txn->Commit());
  }
  static std::string Get(LmdbEnv& env) {
    const auto db = env.OpenDatabase("d");
    auto txn = env.BeginRead();
    if (!db.ok() || !txn.ok()) return "error";
    const auto value = txn->Get(*db, AsBytes("k"));
    return value.ok() && value->has_value() ? std::string(AsText(**value)) : "none";
  }
  // A run that wrote "v" to both and ended with or without Close.
  void Run(bool close) {
    auto state = Open();
    ASSERT_TRUE(state.ok()) << state.status().ToString();
    Put(*state->journal, "v");
    Put(*state->cache, "v");
    if (close) {
      ASSERT_OK(state->Close());
    }
  }
  void ExpectCache(const std::string& value, const std::string& note) {
    auto state = Open();
    ASSERT_TRUE(state.ok()) << state.status().ToString();
    EXPECT_EQ(Get(*state->journal), "v");
    EXPECT_EQ(Get(*state->cache), value);
    if (note.empty()) {
      EXPECT_TRUE(state->notes.empty());
    } else {
      ASSERT_EQ(state->notes.size(), 1U);
      EXPECT_NE(state->notes[0].find(note), std::string::npos) << state->notes[0];
    }
  }

  TempDir dir_;
  std::string state_ = dir_.path() + "/lib/thimble";
  std::string boot_id_ = dir_.path() + "/boot_id";
};

TEST_F(StateDirTest, ACleanCacheOutlivesARestartOfTheMachine) {
  SetBoot("boot-a");
  Run(/*close=*/true);
  SetBoot("boot-b");
  ExpectCache("v", "");
}

TEST_F(StateDirTest, AnUncleanCacheOutlivesTheProcessUnderTheSameBoot) {
  SetBoot("boot-a");
  Run(/*close=*/false);
  ExpectCache("v", "");
}

TEST_F(StateDirTest, AnUncleanCacheOfAnotherBootIsDiscardedAndTheJournalKept) {
  SetBoot("boot-a");
  Run(/*close=*/false);
  SetBoot("boot-b");
  ExpectCache("none", "restarted");
}

TEST_F(StateDirTest, AnUnknownBootIsNeverTheSame) {
  SetBoot("");
  Run(/*close=*/false);
  ExpectCache("none", "restarted");
}

TEST_F(StateDirTest, ACacheThatWasCleanIsUncleanOnceOpened) {
  SetBoot("boot-a");
  Run(/*close=*/true);
  SetBoot("boot-b");
  Run(/*close=*/false);
  SetBoot("boot-c");
  ExpectCache("none", "restarted");
}

TEST_F(StateDirTest, ACacheWithoutOrWithADamagedMarkIsDiscarded) {
  SetBoot("boot-a");
  Run(/*close=*/true);
  std::filesystem::remove(state_ + "/cache.mark");
  ExpectCache("none", "missing");
  std::ofstream(state_ + "/cache.mark") << "thimble-cache 2 clean boot-a\n";
  ExpectCache("none", "format version");
  std::ofstream(state_ + "/cache.mark") << "thimble-cache 1 cle";
  ExpectCache("none", "damaged");
}

TEST_F(StateDirTest, ACacheThatLmdbRefusesIsDiscarded) {
  SetBoot("boot-a");
  Run(/*close=*/true);
  std::ofstream(state_ + "/cache/data.mdb") << std::string(100000, 'x');
  ExpectCache("none", "not an LMDB file");
}

TEST_F(StateDirTest, OnAFullDiskTheCacheMakesRoomAndTheJournalIsKept) {
  const std::string disk = dir_.path() + "/disk";
  std::filesystem::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=2m") != 0) {
    GTEST_SKIP() << "mount a tmpfs: " << std::strerror(errno);
  }
  state_ = disk + "/state";
  SetBoot("boot-a");
  Run(/*close=*/false);
  {
    std::ofstream filler(disk + "/filler", std::ios::binary);
    const std::string block(4096, 'x');
    while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  ExpectCache("none", "to make room");
  EXPECT_EQ(::umount(disk.c_str()), 0) << std::strerror(errno);
}

TEST_F(StateDirTest, ADamagedJournalIsKeptAndDataLossSaysWhatToDo) {
  SetBoot("boot-a");
  Run(/*close=*/true);
  const std::string garbage(100000, 'x');
  std::ofstream(state_ + "/journal/data.mdb") << garbage;
  const auto state = Open();
  ASSERT_EQ(state.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(state.status().message().find(state_ + "/journal"), std::string::npos);
  EXPECT_NE(state.status().message().find("move it away"), std::string::npos);
  std::stringstream kept;
  kept << std::ifstream(state_ + "/journal/data.mdb").rdbuf();
  EXPECT_EQ(kept.str(), garbage);
}

TEST_F(StateDirTest, ASecondDaemonIsRefusedAndHarmsNothing) {
  SetBoot("boot-a");
  auto first = Open();
  ASSERT_TRUE(first.ok());
  Put(*first->cache, "v");
  const auto second = Open();
  ASSERT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("pid " + std::to_string(::getpid())), std::string::npos);
  EXPECT_EQ(Get(*first->cache), "v");
  Put(*first->journal, "v");
  ASSERT_OK(first->Close());
  ExpectCache("v", "");
}

}  // namespace
}  // namespace thimble
