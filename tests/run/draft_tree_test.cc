// Trees of drafts: their shape, and passes that compute one, of which every row gets to the bit
// what it would get if its ancestors were the text.
#include "daemon/run/draft_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/run/runner_fixture.h"

namespace thimble {
namespace {

using testing::ElementsAre;

std::vector<int32_t> Path(const DraftTree& tree, uint32_t row) {
  std::array<int32_t, DraftTree::kMost> path{};
  tree.PathTo(row, &path);
  return {path.begin(), path.begin() + tree.Depth(row)};
}

//   0 -+- 1: 10 -+- 3: 30
//      |         +- 4: 40 --- 5: 50
//      +- 2: 20
DraftTree Branches() {
  DraftTree tree;
  EXPECT_EQ(tree.Add(10, 0), 1U);
  EXPECT_EQ(tree.Add(20, 0), 2U);
  EXPECT_EQ(tree.Add(30, 1), 3U);
  EXPECT_EQ(tree.Add(40, 1), 4U);
  EXPECT_EQ(tree.Add(50, 4), 5U);
  return tree;
}

TEST(DraftTree, ARowIsAsDeepAsItsPathIsLong) {
  const DraftTree tree = Branches();
  EXPECT_EQ(tree.Depth(0), 0U);
  EXPECT_THAT(Path(tree, 2), ElementsAre(20));
  EXPECT_THAT(Path(tree, 5), ElementsAre(10, 40, 50));
}

TEST(DraftTree, AChildIsFoundByItsTokenAmongTheFirstDrafts) {
  const DraftTree tree = Branches();
  EXPECT_EQ(tree.Child(1, 40, 5), 4U);
  EXPECT_EQ(tree.Child(1, 40, 3), 0U) << "row 4 was left out";
  EXPECT_EQ(tree.Child(1, 50, 5), 0U) << "another row's";
}

TEST(DraftTree, DepthFirstKeepsEveryPathAndBeginsWithTheFirstBranch) {
  const DraftTree sorted = Branches().DepthFirst();
  ASSERT_EQ(sorted.size, 5U);
  EXPECT_THAT(std::vector<int32_t>(sorted.tokens.begin(), sorted.tokens.begin() + 5),
              ElementsAre(10, 30, 40, 50, 20));
  EXPECT_THAT(Path(sorted, 4), ElementsAre(10, 40, 50));
  EXPECT_EQ(sorted.ChainSize(), 2U);
  EXPECT_EQ(DraftTree().DepthFirst().size, 0U);
}

// Keeps the rows that the text goes on with.
class TreeSink final : public LogitsSink {
 public:
  // `next`: what follows the last token.
  TreeSink(const DraftTree& tree, std::vector<int32_t> next)
      : tree_(tree), next_(std::move(next)) {}
  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override {
    return recorder.OnLogits(row, first_token, logits);
  }
  uint32_t TokensToKeep(uint32_t n_tokens) override {
    rows_in_pass = n_tokens;
    uint32_t row = 0;
    for (const int32_t token : next_) {
      row = tree_.Child(row, token, n_tokens - 1);
      if (row == 0) break;
      kept_.push_back(static_cast<uint8_t>(row));
    }
    return static_cast<uint32_t>(kept_.size());
  }
  [[nodiscard]] std::span<const uint8_t> RowsToKeep() const override { return kept_; }
  Recorder recorder;
  uint32_t rows_in_pass = 0;

 private:
  const DraftTree& tree_;
  const std::vector<int32_t> next_;
  std::vector<uint8_t> kept_ = {0};
};

// Some of what the text goes on with, and wrong tokens wherever they fall.
DraftTree SomeTree(std::mt19937& random, std::span<const int32_t> next) {
  DraftTree tree;
  uint32_t last_right = 0;
  const uint32_t n_right = random() % (std::min<size_t>(next.size(), 5) + 1);
  for (uint32_t i = 0; i < n_right; ++i) {
    while (random() % 2 == 0 && tree.size < 9) {
      tree.Add(static_cast<int32_t>(900 + tree.size), random() % (tree.size + 1));
    }
    last_right = tree.Add(next[i], last_right);
  }
  while (tree.size < 3) tree.Add(static_cast<int32_t>(900 + tree.size), random() % (tree.size + 1));
  return random() % 2 == 0 ? tree.DepthFirst() : tree;
}

// The tokens of a pass: the text's last one and its drafts.
std::vector<int32_t> RowsOf(int32_t last, const DraftTree& tree) {
  std::vector<int32_t> rows = {last};
  rows.insert(rows.end(), tree.tokens.begin(), tree.tokens.begin() + tree.size);
  return rows;
}

class DraftTreeTest : public RunnerTest {
 protected:
  // The text by trees; each row's logits are compared with those of the text and its path alone.
  void RunTrees(const std::vector<int32_t>& tokens, const Logits& expected, uint32_t seed) {
    std::mt19937 random(seed);
    KvSequence sequence = Sequence(tokens);
    uint32_t most_kept = 0;
    while (sequence.n_tokens < tokens.size()) {
      const uint32_t at = sequence.n_tokens;
      const auto next = std::span(tokens).subspan(at + 1);
      const DraftTree tree = SomeTree(random, next);
      const std::vector<int32_t> rows = RowsOf(tokens[at], tree);
      TreeSink sink(tree, {next.begin(), next.end()});
      const PassItem item = {&sequence, rows, 1 + tree.size, &sink, &tree};
      const Status status = Pass({&item, 1});
      ASSERT_TRUE(status.ok()) << status.ToString();
      const std::span<const uint8_t> kept = sink.RowsToKeep();
      ASSERT_EQ(sequence.n_tokens, at + kept.size());
      most_kept = std::max(most_kept, static_cast<uint32_t>(kept.size()));
      cut_ = cut_ || sink.rows_in_pass < rows.size();
      whole_ = whole_ || (sink.rows_in_pass == rows.size() && tree.ChainSize() < tree.size);
      for (size_t i = 0; i < kept.size(); ++i) {
        ASSERT_TRUE(sink.recorder.rows[kept[i]] == expected.at(at + static_cast<uint32_t>(i)))
            << "token " << at + i << ", row " << int{kept[i]};
      }
      // Of the refused rows, the last one.
      if (at % 9 != 0) continue;
      const uint32_t row = sink.rows_in_pass - 1;
      std::vector<int32_t> alone(tokens.begin(), tokens.begin() + at + 1);
      for (const int32_t token : Path(tree, row)) alone.push_back(token);
      ASSERT_TRUE(sink.recorder.rows[row] == LastLogits(alone)) << "row " << row;
    }
    EXPECT_GT(most_kept, 3U);
    EXPECT_TRUE(session_.kv->CloseSequence(sequence).ok());
    // What was stored of it is what its tokens have.
    EXPECT_TRUE(LastLogits(tokens) == expected.rbegin()->second);
  }
  // After the last of the tokens, with blocks that are known taken over.
  std::vector<float> LastLogits(const std::vector<int32_t>& tokens) {
    KvSequence sequence = Sequence(tokens);
    Recorder recorder;
    while (sequence.n_tokens < tokens.size()) {
      recorder.rows.clear();
      const PassItem item = {&sequence, std::span(tokens).subspan(sequence.n_tokens, 1), 1,
                             &recorder};
      const Status status = Pass({&item, 1});
      EXPECT_TRUE(status.ok()) << status.ToString();
      if (!status.ok()) break;
    }
    EXPECT_TRUE(session_.kv->CloseSequence(sequence).ok());
    return recorder.rows[0];
  }
  bool cut_ = false;    // some pass had fewer rows than drafts
  bool whole_ = false;  // some pass had all of a tree with branches
};

TEST_F(DraftTreeTest, EveryRowSeesTheTextAndItsAncestorsAlone) {
  const std::vector<int32_t> tokens = SomeTokens(75);
  kv_ram_tokens_ = 512;
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    kv_type_ = type;
    Open(Options(Granularity::kAuto, UINT64_MAX, 64));
    const Logits expected = Run(tokens, 1);
    for (const Granularity granularity :
         {Granularity::kHead, Granularity::kOp, Granularity::kAuto}) {
      for (const uint64_t budget : {2 * kMiB, UINT64_MAX}) {
        Open(Options(granularity, budget, 64));
        cut_ = false;
        RunTrees(tokens, expected, 7);
        EXPECT_FALSE(cut_);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(DraftTreeTest, WhereRowsHaveNoPlaceInRamAChainIsLeft) {
  const std::vector<int32_t> tokens = SomeTokens(75);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 1);
  kv_ram_tokens_ = 0;
  Open(Options(Granularity::kAuto, 700 * kKiB, 64));
  RunTrees(tokens, expected, 8);
  EXPECT_TRUE(cut_);
}

// One block has a place: trees that reach over its end are cut.
TEST_F(DraftTreeTest, WhereSomeRowsHaveNoPlaceInRamThatPassHasAChain) {
  const std::vector<int32_t> tokens = SomeTokens(75);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits expected = Run(tokens, 1);
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    kv_type_ = type;
    kv_ram_tokens_ = 0;
    Open(Options(Granularity::kAuto, UINT64_MAX, 64));
    const Logits of_type = Run(tokens, 1);
    kv_ram_tokens_ = 32;
    PlanOptions options = Options(Granularity::kAuto, 900 * kKiB, 64);
    options.step_rows = 16;
    Open(options);
    cut_ = whole_ = false;
    RunTrees(tokens, of_type, 11);
    EXPECT_TRUE(cut_) << KvTypeName(type) << ": " << session_.plan->kv_bytes;
    EXPECT_TRUE(whole_) << KvTypeName(type) << ": " << session_.plan->kv_bytes;
  }
}

// What a dropped item's drafts were is not looked at any more, and the next pass is as ever.
TEST_F(DraftTreeTest, AnItemThatIsDroppedAnywhereTakesItsDraftsWithIt) {
  const std::vector<int32_t> a = SomeTokens(40);
  const std::vector<int32_t> b = SomeTokens(35, 11);
  kv_ram_tokens_ = 512;
  Open(Options(Granularity::kHead, UINT64_MAX, 64));
  const Logits alone = Run(a, 1);
  std::mt19937 random(12);
  for (const int steps : {1, 5, 20, 40, 80, 150}) {
    Open(Options(Granularity::kHead, UINT64_MAX, 64));
    KvSequence sequence_a = Sequence(a);
    auto sequence_b = std::make_unique<KvSequence>(Sequence(b));
    const DraftTree tree_a = SomeTree(random, std::span(a).subspan(1));
    auto tree_b = std::make_unique<DraftTree>(SomeTree(random, std::span(b).subspan(1)));
    const std::vector<int32_t> rows_a = RowsOf(a[0], tree_a);
    auto rows_b = std::make_unique<std::vector<int32_t>>(RowsOf(b[0], *tree_b));
    TreeSink sink_a(tree_a, {a.begin() + 1, a.end()});
    auto sink_b = std::make_unique<TreeSink>(*tree_b, std::vector<int32_t>());
    const std::vector<PassItem> items = {
        {sequence_b.get(), *rows_b, 1 + tree_b->size, sink_b.get(), tree_b.get()},
        {&sequence_a, rows_a, 1 + tree_a.size, &sink_a, &tree_a}};
    Begin(items);
    bool done = false;
    for (int i = 0; i < steps && !done; ++i) done = Step();
    ASSERT_FALSE(done) << steps;
    session_.runner->Drop(0);
    ASSERT_TRUE(session_.kv->CloseSequence(*sequence_b).ok());
    sequence_b.reset();
    tree_b.reset();
    rows_b.reset();
    sink_b.reset();
    while (!done) done = Step();
    const std::span<const uint8_t> kept = sink_a.RowsToKeep();
    ASSERT_EQ(sequence_a.n_tokens, kept.size());
    for (size_t i = 0; i < kept.size(); ++i) {
      ASSERT_TRUE(sink_a.recorder.rows[kept[i]] == alone.at(static_cast<uint32_t>(i))) << steps;
    }
  }
}

TEST_F(DraftTreeTest, TreesOfSeveralItemsShareAPass) {
  const std::vector<int32_t> a = SomeTokens(40);
  const std::vector<int32_t> b = SomeTokens(35, 11);
  kv_ram_tokens_ = 512;
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const Logits alone_a = Run(a, 1);
  const Logits alone_b = Run(b, 1);
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  KvSequence sequence_a = Sequence(a);
  KvSequence sequence_b = Sequence(b);
  std::mt19937 random(9);
  while (sequence_a.n_tokens < a.size() || sequence_b.n_tokens < b.size()) {
    std::vector<PassItem> items;
    std::vector<DraftTree> trees(2);
    std::vector<std::vector<int32_t>> rows(2);
    std::vector<TreeSink> sinks;
    sinks.reserve(2);
    std::vector<std::pair<const Logits*, uint32_t>> expected;
    for (const bool first : {true, false}) {
      KvSequence& sequence = first ? sequence_a : sequence_b;
      const std::vector<int32_t>& tokens = first ? a : b;
      const uint32_t at = sequence.n_tokens;
      if (at >= tokens.size()) continue;
      const size_t i = items.size();
      const auto next = std::span(tokens).subspan(at + 1);
      trees[i] = SomeTree(random, next);
      rows[i] = RowsOf(tokens[at], trees[i]);
      sinks.emplace_back(trees[i], std::vector<int32_t>(next.begin(), next.end()));
      items.push_back({&sequence, rows[i], 1 + trees[i].size, &sinks[i], &trees[i]});
      expected.emplace_back(first ? &alone_a : &alone_b, at);
    }
    const Status status = Pass(items);
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (size_t i = 0; i < items.size(); ++i) {
      const std::span<const uint8_t> kept = sinks[i].RowsToKeep();
      for (size_t k = 0; k < kept.size(); ++k) {
        ASSERT_TRUE(sinks[i].recorder.rows[kept[k]] ==
                    expected[i].first->at(expected[i].second + static_cast<uint32_t>(k)));
      }
    }
  }
}

TEST_F(DraftTreeTest, AnItemWhoseTokensAreNotItsTreesIsRefused) {
  Open(Options(Granularity::kAuto, UINT64_MAX, 64));
  const DraftTree tree = Branches();
  const std::vector<int32_t> tokens = SomeTokens(5);
  KvSequence sequence = Sequence(tokens);
  TreeSink sink(tree, {});
  const PassItem item = {&sequence, tokens, 5, &sink, &tree};
  EXPECT_EQ(session_.runner->Begin({&item, 1}).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace thimble
