#include "storage/journal.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "storage/encoding.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

constexpr uint64_t kMap = uint64_t{4} << 20;
using Tokens = std::vector<int32_t>;

struct Fixture {
  explicit Fixture(const std::string& path, uint64_t map_bytes = kMap)
      : env(MustOpen(path, map_bytes, /*sync=*/true)) {
    auto opened = Journal::Open(*env);
    if (opened.ok()) journal = std::move(opened).value();
  }
  std::unique_ptr<LmdbEnv> env;
  std::unique_ptr<Journal> journal;
};

Status Append(Journal& journal, uint64_t number, uint32_t index, const Tokens& tokens) {
  const Journal::Emitted emitted = {number, index, tokens};
  return journal.AppendTokens({&emitted, 1});
}

TEST(Journal, AcceptedRequestsComeBackWithTheirTokensAfterReopening) {
  const TempDir dir;
  const std::string body("a prompt\0with a zero", 20);
  {
    Fixture f(dir.path());
    EXPECT_EQ(f.journal->Accept("first", body).value(), 1U);
    EXPECT_EQ(f.journal->Accept("", "").value(), 2U);
    ASSERT_OK(Append(*f.journal, 1, 0, {10, -1, 2147483647}));
    const Tokens a = {40};
    const Tokens b = {50, 51};
    const Journal::Emitted both[] = {{1, 3, a}, {2, 0, b}};
    ASSERT_OK(f.journal->AppendTokens(both));
    ASSERT_OK(f.journal->Finish(2, "length"));
  }
  Fixture f(dir.path());
  const auto first = f.journal->Load(1);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ(first->name, "first");
  EXPECT_EQ(first->request, body);
  EXPECT_EQ(first->tokens, (Tokens{10, -1, 2147483647, 40}));
  EXPECT_FALSE(first->outcome.has_value());
  const auto second = f.journal->Load(2);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->tokens, (Tokens{50, 51}));
  EXPECT_EQ(second->outcome, "length");
  EXPECT_EQ(f.journal->Unfinished().value(), std::vector<uint64_t>{1});
  EXPECT_EQ(f.journal->FindByName("first").value(), std::optional<uint64_t>(1));
  EXPECT_EQ(f.journal->FindByName("second").value(), std::nullopt);
  EXPECT_EQ(f.journal->Load(3).status().code(), StatusCode::kNotFound);
}

TEST(Journal, NamesAreUniqueAndFreeAgainAfterRemoval) {
  const TempDir dir;
  Fixture f(dir.path());
  ASSERT_TRUE(f.journal->Accept("n", "1").ok());
  EXPECT_EQ(f.journal->Accept("n", "2").status().code(), StatusCode::kAlreadyExists);
  ASSERT_OK(f.journal->Remove(1));
  EXPECT_EQ(f.journal->FindByName("n").value(), std::nullopt);
  EXPECT_EQ(f.journal->Remove(1).code(), StatusCode::kNotFound);
  EXPECT_EQ(f.journal->Accept("n", "3").value(), 2U) << "a number is never used again";
  EXPECT_EQ(f.journal->Accept(std::string(257, 'x'), "").status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(f.journal->Accept("", std::string((1 << 20) + 1, 'x')).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(Journal, TokensMustFollowOneAnotherAndAllOrNoneAreTaken) {
  const TempDir dir;
  Fixture f(dir.path());
  ASSERT_TRUE(f.journal->Accept("", "a").ok());
  ASSERT_TRUE(f.journal->Accept("", "b").ok());
  ASSERT_OK(Append(*f.journal, 1, 0, {1, 2}));
  EXPECT_EQ(Append(*f.journal, 1, 1, {9}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Append(*f.journal, 1, 3, {9}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Append(*f.journal, 3, 0, {9}).code(), StatusCode::kNotFound);
  const Tokens good = {7};
  const Journal::Emitted both[] = {{2, 0, good}, {1, 5, good}};
  EXPECT_EQ(f.journal->AppendTokens(both).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(f.journal->Load(2)->tokens.empty());
  EXPECT_EQ(f.journal->Load(1)->tokens, (Tokens{1, 2}));
  ASSERT_OK(f.journal->Finish(1, "stop"));
  EXPECT_EQ(Append(*f.journal, 1, 2, {9}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(f.journal->Finish(1, "stop").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(f.journal->Finish(9, "stop").code(), StatusCode::kNotFound);
}

TEST(Journal, TheRequestsThatEndedFirstAreTrimmed) {
  const TempDir dir;
  Fixture f(dir.path());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(f.journal->Accept("n" + std::to_string(i), "r").ok());
  for (const uint64_t number : {5, 2, 4, 1}) {
    ASSERT_OK(Append(*f.journal, number, 0, {1}));
    ASSERT_OK(f.journal->Finish(number, "o", 2));
  }
  EXPECT_EQ(f.journal->Load(5).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(f.journal->Load(2).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(f.journal->FindByName("n4").value(), std::nullopt);
  EXPECT_TRUE(f.journal->Load(4).ok());
  EXPECT_TRUE(f.journal->Load(1).ok());
  EXPECT_TRUE(f.journal->Load(3).ok()) << "not ended, so not trimmed";
  ASSERT_OK(f.journal->Finish(3, "o", 0));
  for (uint64_t number = 1; number <= 5; ++number) {
    EXPECT_EQ(f.journal->Load(number).status().code(), StatusCode::kNotFound) << number;
  }
}

TEST(Journal, ADamagedRecordIsDataLossForItsRequestAlone) {
  const TempDir dir;
  Fixture f(dir.path());
  ASSERT_TRUE(f.journal->Accept("one", "body").ok());
  ASSERT_TRUE(f.journal->Accept("two", "body").ok());
  ASSERT_OK(Append(*f.journal, 1, 0, {1, 2}));
  ASSERT_OK(Append(*f.journal, 2, 0, {3}));
  const auto damage = [&](const char* database, const Key& key, size_t at) {
    const auto db = f.env->OpenDatabase(database);
    auto txn = f.env->BeginWrite();
    std::string value(AsText(**txn->Get(*db, key.bytes())));
    value[at] = static_cast<char>(value[at] ^ 1);
    return txn->Put(*db, key.bytes(), AsBytes(value)).ok() && txn->Commit().ok();
  };
  ASSERT_TRUE(damage("tokens", Key().U64(1).U32(0), 2));
  EXPECT_EQ(f.journal->Load(1).status().code(), StatusCode::kDataLoss);
  EXPECT_TRUE(f.journal->Load(2).ok());
  ASSERT_TRUE(damage("requests", Key().U64(1), 4));
  EXPECT_EQ(f.journal->Load(1).status().code(), StatusCode::kDataLoss);
  ASSERT_OK(f.journal->Remove(1));
  EXPECT_EQ(f.journal->FindByName("one").value(), std::nullopt);
  EXPECT_TRUE(f.journal->Load(2).ok());
}

TEST(Journal, ARecordMovedToAnotherKeyIsDataLoss) {
  const TempDir dir;
  Fixture f(dir.path());
  ASSERT_TRUE(f.journal->Accept("", "body").ok());
  ASSERT_TRUE(f.journal->Accept("", "other").ok());
  const auto db = f.env->OpenDatabase("requests");
  auto txn = f.env->BeginWrite();
  const std::string value(AsText(**txn->Get(*db, Key().U64(1).bytes())));
  ASSERT_OK(txn->Put(*db, Key().U64(2).bytes(), AsBytes(value)));
  ASSERT_OK(txn->Commit());
  EXPECT_EQ(f.journal->Load(2).status().code(), StatusCode::kDataLoss);
}

TEST(Journal, AFullJournalLetsGoOfEndedRequestsThenRefusesAndRecovers) {
  const TempDir dir;
  Fixture f(dir.path(), uint64_t{512} << 10);
  const std::string body(20000, 'x');
  for (uint64_t i = 1; i <= 60; ++i) {  // three times what fits
    const auto number = f.journal->Accept("", body);
    ASSERT_TRUE(number.ok()) << i << ": " << number.status().ToString();
    ASSERT_OK(Append(*f.journal, *number, 0, Tokens(100, 5)));
    ASSERT_OK(f.journal->Finish(*number, "length"));
  }
  std::vector<uint64_t> accepted;
  Status status;
  while (status.ok() && accepted.size() < 100) {
    const auto number = f.journal->Accept("", body);
    if (number.ok()) accepted.push_back(*number);
    status = number.status();
  }
  ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  ASSERT_GT(accepted.size(), 5U);
  // Tokens go on until they, too, find the journal full; ends are always recorded.
  Status tokens;
  uint32_t index = 0;
  for (; tokens.ok() && index < 1000000; index += 1000) {
    tokens = Append(*f.journal, accepted[0], index, Tokens(1000, 7));
  }
  EXPECT_EQ(tokens.code(), StatusCode::kResourceExhausted) << tokens.ToString();
  EXPECT_EQ(f.journal->Unfinished().value(), accepted);
  for (const uint64_t number : accepted) {
    EXPECT_EQ(f.journal->Load(number).value().request, body);
    EXPECT_OK(f.journal->Finish(number, "failed: the journal is full"));
  }
  EXPECT_TRUE(f.journal->Accept("", body).ok());
}

// What this shows: at the moment Accept or AppendTokens returns, the file as the kernel has it is
// complete. That it was on the medium, too, rests on LMDB's fdatasync before the meta page and the
// device's obedience to it; a copy through the page cache cannot show that.
TEST(Journal, ACopyOfTheFileTakenAtAnyReturnHoldsEverythingAcknowledged) {
  const TempDir dir;
  Fixture f(dir.path() + "/j");
  Tokens tokens;
  for (int i = 0; i < 20; ++i) {
    const uint64_t number = f.journal->Accept("n" + std::to_string(i), "body").value();
    ASSERT_OK(Append(*f.journal, 1, static_cast<uint32_t>(tokens.size()), {i, i + 1}));
    tokens.insert(tokens.end(), {i, i + 1});
    const std::string copy = dir.path() + "/copy" + std::to_string(i);
    std::filesystem::create_directory(copy);
    std::filesystem::copy_file(dir.path() + "/j/data.mdb", copy + "/data.mdb");
    Fixture g(copy);
    EXPECT_TRUE(g.journal->Load(number).ok());
    EXPECT_EQ(g.journal->Load(1)->tokens, tokens);
  }
}

TEST(Journal, NothingAcknowledgedIsLostWhenTheProcessIsKilled) {
  const TempDir dir;
  int acknowledged[2];
  ASSERT_EQ(::pipe(acknowledged), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Fixture f(dir.path());
    if (!f.journal->Accept("killed", "body").ok()) ::_exit(1);
    for (int32_t i = 0;; ++i) {
      if (!Append(*f.journal, 1, static_cast<uint32_t>(i), {i}).ok()) ::_exit(1);
      if (::write(acknowledged[1], &i, sizeof i) != sizeof i) ::_exit(1);
    }
  }
  ::close(acknowledged[1]);
  int32_t last = -1;
  while (last < 30) ASSERT_EQ(::read(acknowledged[0], &last, sizeof last), 4);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  for (int32_t next = 0; ::read(acknowledged[0], &next, sizeof next) == 4;) last = next;
  ::close(acknowledged[0]);

  Fixture f(dir.path());
  const auto entry = f.journal->Load(1);
  ASSERT_TRUE(entry.ok()) << entry.status().ToString();
  ASSERT_GE(entry->tokens.size(), static_cast<size_t>(last) + 1);
  EXPECT_LE(entry->tokens.size(), static_cast<size_t>(last) + 2);
  for (size_t i = 0; i < entry->tokens.size(); ++i) {
    EXPECT_EQ(entry->tokens[i], static_cast<int32_t>(i));
  }
  ASSERT_OK(Append(*f.journal, 1, static_cast<uint32_t>(entry->tokens.size()), {1}));
}

}  // namespace
}  // namespace thimble
