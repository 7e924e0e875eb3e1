#include "storage/vocab_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

struct TestToken {
  std::string text;
  float score = 0;
  uint8_t kind = 1;
};

VocabIndex::TokenSource Tokens(const std::vector<TestToken>& tokens) {
  return [&tokens](const std::function<Status(const VocabToken&)>& add) -> Status {
    for (const TestToken& token : tokens) {
      THIMBLE_RETURN_IF_ERROR(add({token.text, token.score, token.kind}));
    }
    return {};
  };
}

VocabIndex::MergeSource Merges(const std::vector<std::string>& merges) {
  return [&merges](const std::function<Status(std::string_view)>& add) -> Status {
    for (const std::string& merge : merges) THIMBLE_RETURN_IF_ERROR(add(merge));
    return {};
  };
}

std::unique_ptr<VocabIndex> MustOpenIndex(LmdbEnv& env, uint8_t model) {
  auto index = VocabIndex::Open(env, Fingerprint{model});
  EXPECT_TRUE(index.ok()) << index.status().ToString();
  return index.ok() ? std::move(index).value() : nullptr;
}

class VocabIndexTest : public ::testing::Test {
 protected:
  TempDir dir_;
  std::unique_ptr<LmdbEnv> env_ = MustOpen(dir_.path() + "/cache", 64 << 20);
  const std::vector<TestToken> tokens_ = {
      {"a"},         {"b"}, {"ab", -1.5F, 4}, {"", 0, 5}, {"b", 9},
      {"<s>", 0, 3}, {"<"}, {"s>"},           {"c d"},    {std::string("\0\xFF", 2)}};
};

TEST_F(VocabIndexTest, GivesBackTokensByIdAndByText) {
  auto index = MustOpenIndex(*env_, 1);
  EXPECT_FALSE(index->IsBuilt().value());
  ASSERT_OK(index->Build(Tokens(tokens_), Merges({})));
  EXPECT_TRUE(index->IsBuilt().value());
  VocabIndex::Reader reader(*index);
  ASSERT_OK(reader.status());
  for (uint32_t id = 0; id < tokens_.size(); ++id) {
    const auto token = reader.Token(id);
    ASSERT_TRUE(token.ok()) << token.status().ToString();
    EXPECT_EQ(token->text, tokens_[id].text);
    EXPECT_EQ(token->score, tokens_[id].score);
    EXPECT_EQ(token->kind, tokens_[id].kind);
    const uint32_t lowest = id == 4 ? 1 : id;  // "b" is there twice
    EXPECT_EQ(reader.Find(tokens_[id].text).value(), lowest);
  }
  EXPECT_EQ(reader.Token(10).status().code(), StatusCode::kOutOfRange);
  EXPECT_EQ(reader.Find("abc").value(), std::nullopt);
}

TEST_F(VocabIndexTest, GivesMergesByTheirIdsWithRankAndResult) {
  auto index = MustOpenIndex(*env_, 1);
  // Rank 0 has no such result, 1 no space, 2 leads to a control token; 4 repeats 3.
  ASSERT_OK(index->Build(Tokens(tokens_), Merges({"b a", "ab", "< s>", "a b", "a b"})));
  VocabIndex::Reader reader(*index);
  const auto merge = reader.Merge(0, 1);
  ASSERT_TRUE(merge.ok() && merge->has_value());
  EXPECT_EQ((*merge)->rank, 3U);
  EXPECT_EQ((*merge)->result, 2U);
  EXPECT_FALSE(reader.Merge(1, 0).value().has_value());
  EXPECT_FALSE(reader.Merge(6, 7).value().has_value());
}

TEST_F(VocabIndexTest, IsThereAfterTheEnvironmentIsOpenedAgain) {
  ASSERT_OK(MustOpenIndex(*env_, 1)->Build(Tokens(tokens_), Merges({"a b"})));
  env_.reset();
  env_ = MustOpen(dir_.path() + "/cache", 64 << 20);
  auto index = MustOpenIndex(*env_, 1);
  EXPECT_TRUE(index->IsBuilt().value());
  EXPECT_EQ(VocabIndex::Reader(*index).Find("ab").value(), 2U);
}

TEST_F(VocabIndexTest, SeveralModelsLiveSideBySideAndMayBeBuiltAgain) {
  auto first = MustOpenIndex(*env_, 9);
  auto second = MustOpenIndex(*env_, 1);  // its fingerprint sorts before the first one's
  ASSERT_OK(first->Build(Tokens(tokens_), Merges({"a b"})));
  const std::vector<TestToken> others = {{"x"}, {"ab"}};
  ASSERT_OK(second->Build(Tokens(others), Merges({})));
  EXPECT_EQ(VocabIndex::Reader(*first).Find("ab").value(), 2U);
  EXPECT_EQ(VocabIndex::Reader(*second).Find("ab").value(), 1U);
  EXPECT_EQ(VocabIndex::Reader(*second).Find("a").value(), std::nullopt);
  EXPECT_EQ(VocabIndex::Reader(*second).Token(2).status().code(), StatusCode::kOutOfRange);

  ASSERT_OK(first->Build(Tokens(others), Merges({})));
  EXPECT_EQ(VocabIndex::Reader(*first).Find("ab").value(), 1U);
  EXPECT_EQ(VocabIndex::Reader(*first).Token(2).status().code(), StatusCode::kOutOfRange);
  EXPECT_EQ(VocabIndex::Reader(*second).Find("ab").value(), 1U);
}

TEST_F(VocabIndexTest, ReadingAnUnbuiltIndexIsAnError) {
  auto index = MustOpenIndex(*env_, 1);
  VocabIndex::Reader reader(*index);
  EXPECT_EQ(reader.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(reader.Token(0).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(reader.Find("a").status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(reader.Merge(0, 1).status().code(), StatusCode::kFailedPrecondition);
}

// Entries of all the index's databases.
uint64_t CountEntries(LmdbEnv& env) {
  uint64_t entries = 0;
  for (const char* name : {"vocab_models", "vocab_tokens", "vocab_texts", "vocab_merges"}) {
    const auto db = env.OpenDatabase(name);
    EXPECT_TRUE(db.ok());
    const auto txn = env.BeginRead();
    EXPECT_TRUE(txn.ok());
    entries += txn->Count(*db).value();
  }
  return entries;
}

TEST_F(VocabIndexTest, AnInterruptedBuildIsNotBuiltAndLeavesNothingBehindTheNext) {
  // Enough that several batches have been committed before the source fails.
  const VocabIndex::TokenSource failing = [](const auto& add) -> Status {
    for (int i = 0; i < 20000; ++i) {
      THIMBLE_RETURN_IF_ERROR(add({"token number " + std::to_string(i), 0, 1}));
    }
    return UnavailableError("read vocabulary: Input/output error");
  };
  auto index = MustOpenIndex(*env_, 1);
  EXPECT_EQ(index->Build(failing, Merges({})).code(), StatusCode::kUnavailable);
  EXPECT_FALSE(index->IsBuilt().value());
  EXPECT_GT(CountEntries(*env_), 10000U);
  env_.reset();  // as after a kill
  env_ = MustOpen(dir_.path() + "/cache", 64 << 20);

  auto other = MustOpenIndex(*env_, 2);  // the leftovers of any model go
  EXPECT_FALSE(MustOpenIndex(*env_, 1)->IsBuilt().value());
  ASSERT_OK(other->Build(Tokens(tokens_), Merges({"a b"})));
  // One model, 10 tokens, 9 texts that differ, 1 merge.
  EXPECT_EQ(CountEntries(*env_), 21U);
  EXPECT_EQ(VocabIndex::Reader(*other).Find("ab").value(), 2U);
}

TEST_F(VocabIndexTest, AFullMapIsResourceExhaustedAndTheIndexStaysUnbuilt) {
  env_.reset();
  auto small = MustOpen(dir_.path() + "/small", 256 << 10);
  auto index = MustOpenIndex(*small, 1);
  const std::vector<TestToken> tokens(20000, {"a token of some length, to fill the map"});
  EXPECT_EQ(index->Build(Tokens(tokens), Merges({})).code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(index->IsBuilt().value());
}

TEST_F(VocabIndexTest, RandomVocabularyEqualsAPlainMap) {
  std::mt19937 random(3);
  std::set<std::string> seen;
  std::vector<TestToken> tokens;
  while (tokens.size() < 5000) {
    std::string text;
    for (size_t n = 1 + random() % 6; n > 0; --n)
      text.push_back(static_cast<char>('a' + random() % 8));
    if (seen.insert(text).second) tokens.push_back({text, static_cast<float>(random() % 100)});
  }
  std::map<std::string, uint32_t> ids;
  for (uint32_t id = 0; id < tokens.size(); ++id) ids[tokens[id].text] = id;
  std::vector<std::string> merges;
  std::map<std::pair<uint32_t, uint32_t>, VocabMerge> expected;
  for (const auto& [text, id] : ids) {
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut));
      const auto right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end()) {
        expected[{left->second, right->second}] = {static_cast<uint32_t>(merges.size()), id};
      }
      merges.push_back(text.substr(0, cut) + " " + text.substr(cut));
    }
  }
  auto index = MustOpenIndex(*env_, 1);
  ASSERT_OK(index->Build(Tokens(tokens), Merges(merges)));
  VocabIndex::Reader reader(*index);
  for (const auto& [text, id] : ids) ASSERT_EQ(reader.Find(text).value(), id);
  ASSERT_GT(expected.size(), 100U);
  for (const auto& [pair, merge] : expected) {
    const auto found = reader.Merge(pair.first, pair.second);
    ASSERT_TRUE(found.ok() && found->has_value());
    ASSERT_EQ((*found)->rank, merge.rank);
    ASSERT_EQ((*found)->result, merge.result);
  }
  for (int i = 0; i < 5000; ++i) {
    const auto left = static_cast<uint32_t>(random() % tokens.size());
    const auto right = static_cast<uint32_t>(random() % tokens.size());
    ASSERT_EQ(reader.Merge(left, right).value().has_value(), expected.contains({left, right}));
  }
}

}  // namespace
}  // namespace thimble
