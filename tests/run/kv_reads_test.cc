// Keys and values on their way through the ring, between tiles: the right bytes in passes of any
// kind, none of them from LMDB's map, each read once a pass, neighbours together, and errors that
// reach attention.
#include "daemon/run/kv_reads.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "daemon/run/tile_ring.h"
#include "storage/base/bytes.h"
#include "tests/plan/fake_model.h"
#include "tests/storage/kv_test_util.h"

namespace thimble {
namespace {

constexpr KvShape kShape = {.n_layers = 4, .n_kv_heads = 3, .head_dim = 64};
constexpr uint64_t kPitch = 28 * kKiB;  // 24 KiB behind a page's header

// Brings what a file does not have: weights' bytes do not matter here.
class NoWeights final : public WeightReader {
 public:
  Result<uint32_t> Start(uint64_t /*offset*/, uint64_t bytes, std::byte* /*buffer*/) override {
    if (n_pending_ == kMaxInFlight) return ResourceExhaustedError("too many");
    ++n_pending_;
    stats_.bytes += bytes;
    return ++ticket_;
  }
  Status Wait(uint32_t /*ticket*/) override {
    --n_pending_;
    return {};
  }
  [[nodiscard]] bool Arrived(uint32_t /*ticket*/) const override { return true; }
  [[nodiscard]] ReaderBackend backend() const override { return ReaderBackend::kAuto; }

 private:
  size_t n_pending_ = 0;
  uint32_t ticket_ = 0;
};

// A real reader that can fail.
class FailingReader final : public WeightReader {
 public:
  FailingReader(std::unique_ptr<WeightReader> reader, const bool* fail, const bool* refuse)
      : reader_(std::move(reader)), fail_(fail), refuse_(refuse) {}
  Result<uint32_t> Start(uint64_t offset, uint64_t bytes, std::byte* buffer) override {
    if (*refuse_) return UnavailableError("Bad file descriptor");
    ++stats_.reads;
    stats_.bytes += bytes;
    return reader_->Start(offset, bytes, buffer);
  }
  Status Wait(uint32_t ticket) override {
    const Status status = reader_->Wait(ticket);
    return *fail_ ? UnavailableError("Input/output error") : status;
  }
  [[nodiscard]] bool Arrived(uint32_t ticket) const override { return reader_->Arrived(ticket); }
  void Poll() override { reader_->Poll(); }
  void BeginBatch() override { reader_->BeginBatch(); }
  void EndBatch() override { reader_->EndBatch(); }
  [[nodiscard]] ReaderBackend backend() const override { return reader_->backend(); }

 private:
  std::unique_ptr<WeightReader> reader_;
  const bool* fail_;
  const bool* refuse_;
};

class KvReadsTest : public testing::Test {
 protected:
  // With room for so many bytes of resident tiles; UINT64_MAX: without a ceiling.
  void Make(uint64_t resident_bytes, const KvShape& kv_shape = kShape) {
    FakeShape shape = SmolShape();
    shape.n_layers = kShape.n_layers;
    shape.vocab_size = 4000;
    model_ = MakeFakeModel(shape);
    PlanOptions options;
    options.tile_bytes = 128 * kKiB;
    options.budget_bytes = UINT64_MAX;
    options.max_rows = 4;
    Result<Plan> all = MakePlan(*model_, options);
    ASSERT_OK(all.status());
    resident_of_all_ = all->resident_bytes;
    if (resident_bytes != UINT64_MAX) {
      options.budget_bytes = all->peak_bytes - all->resident_bytes + resident_bytes;
    }
    Result<Plan> plan = MakePlan(*model_, options);
    ASSERT_OK(plan.status());
    plan_ = std::move(*plan);
    Result<std::unique_ptr<Arena>> arena = Arena::Map(plan_.peak_bytes);
    ASSERT_OK(arena.status());
    arena_ = std::move(*arena);
    kv_ = MustOpenKv(*env_, 64 * kMiB, kv_shape);
    auto file = OpenFile(env_->DataFile());
    ASSERT_OK(file.status());
    auto reader = WeightReader::Open(**file, ReaderBackend::kAuto, {});
    ASSERT_OK(reader.status());
    reads_ = std::make_unique<KvReads>(
        plan_, *kv_, std::move(*file),
        std::make_unique<FailingReader>(std::move(*reader), &fail_, &refuse_));
    ring_ = std::make_unique<TileRing>(plan_, *arena_, weights_, reads_.get());
  }

  // A sequence of `n` tokens; in passes of `rows` each, which neighbours in the file come of.
  KvSequence& Add(int32_t first, size_t n, size_t rows) {
    const std::vector<int32_t> tokens = Prompt(n, first);
    auto sequence = kv_->OpenSequence(tokens, 512);
    EXPECT_OK(sequence.status());
    sequences_.push_back(std::make_unique<KvSequence>(std::move(*sequence)));
    for (size_t at = 0; at < n; at += rows) {
      EXPECT_OK(
          Pass(*kv_, *sequences_.back(), std::span(tokens).subspan(at, std::min(rows, n - at))));
    }
    return *sequences_.back();
  }

  void Begin(std::span<KvSequence* const> sequences, uint64_t values_end = 0) {
    items_.clear();
    items_.reserve(16);  // they must stay
    for (KvSequence* sequence : sequences) {
      ActiveItem& active = items_.emplace_back();
      active.item.sequence = sequence;
    }
    const auto last_stage = static_cast<uint32_t>(plan_.stages.size()) - 1;
    reads_->BeginPass(items_, last_stage);
    ring_->BeginPass(static_cast<uint32_t>(plan_.tiles.size()), values_end, UINT64_MAX);
  }

  // What attention does in a pass: "" or what is wrong. Blocks that come from the map are counted.
  std::string Attend(const Stage& stage) {
    auto reader = KvCache::Reader::Begin(*kv_);
    if (!reader.ok()) return reader.status().ToString();
    for (const ActiveItem& active : items_) {
      if (active.dropped) continue;
      KvSequence& sequence = *active.item.sequence;
      for (uint32_t block = 0; block < sequence.blocks.size(); ++block) {
        const bool may_move = !KvLayerHasOwnPages(kv_->shape());
        if (!may_move && !kv_->FileOffset(sequence, stage.layer, block)) continue;  // in RAM
        Result<const std::byte*> taken = ring_->Take({sequence.id, stage.layer, block});
        if (!taken.ok()) return taken.status().ToString();
        if (*taken == nullptr) {
          ++from_map_;
          continue;
        }
        const auto tokens =
            std::span(sequence.tokens).subspan(size_t{block} * kKvBlockTokens, kKvBlockTokens);
        const auto rows = Rows(kShape, stage.layer, block * kKvBlockTokens, tokens);
        const auto* got = reinterpret_cast<const uint16_t*>(*taken);
        for (size_t t = 0; t < kKvBlockTokens; ++t) {
          for (size_t piece = 0; piece < size_t{2} * kShape.n_kv_heads; ++piece) {
            for (size_t d = 0; d < kShape.head_dim; ++d) {
              if (got[(piece * kKvBlockTokens + t) * kShape.head_dim + d] !=
                  rows[t * kShape.RowHalves() + piece * kShape.head_dim + d]) {
                return "layer " + std::to_string(stage.layer) + ", block " + std::to_string(block);
              }
            }
          }
        }
      }
    }
    return "";
  }

  // The stages up to `end`.
  std::string Walk(size_t end = SIZE_MAX) {
    for (size_t s = 0; s < std::min(end, plan_.stages.size()); ++s) {
      const Stage& stage = plan_.stages[s];
      if (stage.kind == StageKind::kAttention) {
        if (s == drop_at_) {
          items_[drop_].dropped = true;
          items_[drop_].item.sequence = nullptr;
        }
        if (std::string wrong = Attend(stage); !wrong.empty()) return wrong;
        continue;
      }
      if (stage.kind == StageKind::kEmbed) continue;
      for (uint32_t t = stage.tile_begin; t < stage.tile_end; ++t) {
        if (const auto bytes = ring_->Acquire(t); !bytes.ok()) return bytes.status().ToString();
        if (t == limit_at_) ring_->Limit(limit_);
      }
    }
    return "";
  }

  [[nodiscard]] std::vector<KvSequence*> All() const {
    std::vector<KvSequence*> all;
    for (const auto& sequence : sequences_) all.push_back(sequence.get());
    return all;
  }

  TempDir directory_;
  std::unique_ptr<LmdbEnv> env_ = MustOpen(directory_.path(), 256 * kMiB);
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Model> model_;
  Plan plan_;
  std::unique_ptr<Arena> arena_;
  NoWeights weights_;
  bool fail_ = false;
  bool refuse_ = false;
  std::unique_ptr<KvReads> reads_;
  std::unique_ptr<TileRing> ring_;
  std::vector<std::unique_ptr<KvSequence>> sequences_;
  std::vector<ActiveItem> items_;
  size_t from_map_ = 0;
  size_t drop_at_ = SIZE_MAX;  // the stage at which items_[drop_] is
  size_t drop_ = 0;
  uint32_t limit_at_ = UINT32_MAX;  // behind this tile resident ones have to end at limit_
  uint64_t limit_ = 0;
  uint64_t resident_of_all_ = 0;
};

// The parameter: bytes of resident tiles.
class KvReadsSweep : public KvReadsTest, public testing::WithParamInterface<uint64_t> {};

TEST_P(KvReadsSweep, EachBlockComesThroughTheRingOnceAPass) {
  Make(GetParam());
  uint64_t n_blocks = 0;
  for (int32_t i = 0; i < 6; ++i) {
    const KvSequence& sequence = Add(1000 * (i + 1), 40 + 37 * static_cast<size_t>(i), 33);
    n_blocks += sequence.blocks.size();
  }
  constexpr uint64_t kPasses = 4;
  for (uint64_t pass = 0; pass < kPasses; ++pass) {
    Begin(All());
    ASSERT_EQ(Walk(), "") << pass;
  }
  EXPECT_EQ(from_map_, 0U);
  const uint64_t read = reads_->reader().stats().bytes;
  const uint64_t needed = kPasses * kShape.n_layers * n_blocks * kShape.BlockHalves() * 2;
  EXPECT_GE(read, needed);
  // What lies between neighbours, and what was read ahead for a pass that did not come.
  EXPECT_LE(read, needed + needed / 5 + plan_.ring_bytes);
}

TEST_P(KvReadsSweep, RequestsThatComeAndGoAreServedFromTheMapAtMostWhereTheyChanged) {
  Make(GetParam());
  for (int32_t i = 0; i < 6; ++i) Add(1000 * (i + 1), 70 + 32 * static_cast<size_t>(i), 32);
  const std::vector<KvSequence*> all = All();
  std::mt19937 random(3);
  for (int pass = 0; pass < 40; ++pass) {
    std::vector<KvSequence*> some;
    for (KvSequence* sequence : all) {
      if (random() % 3 != 0) some.push_back(sequence);
    }
    // Passes that are aborted, in which a request ends, and whose values are wide.
    drop_at_ = pass % 5 == 3 && !some.empty() ? random() % plan_.stages.size() : SIZE_MAX;
    drop_ = some.empty() ? 0 : random() % some.size();
    Begin(some, pass % 7 == 2 ? plan_.peak_bytes : 0);
    ASSERT_EQ(Walk(pass % 4 == 1 ? random() % plan_.stages.size() : SIZE_MAX), "") << pass;
  }
  drop_at_ = SIZE_MAX;
  Begin(all);
  ASSERT_EQ(Walk(), "");
  from_map_ = 0;
  Begin(all);
  ASSERT_EQ(Walk(), "");
  EXPECT_EQ(from_map_, 0U) << "the same requests as in the pass before";
}

TEST_P(KvReadsSweep, NothingComesFromTheMapBehindPassesThatWereAbortedWideOrLimited) {
  Make(GetParam());
  for (int32_t i = 0; i < 6; ++i) Add(1000 * (i + 1), 70 + 32 * static_cast<size_t>(i), 32);
  std::mt19937 random(7);
  for (int pass = 0; pass < 40; ++pass) {
    limit_at_ = pass % 6 == 4 ? random() % static_cast<uint32_t>(plan_.tiles.size()) : UINT32_MAX;
    limit_ = plan_.resident_offset + random() % (plan_.peak_bytes - plan_.resident_offset + 1);
    Begin(All(), pass % 7 == 2 ? plan_.peak_bytes : 0);
    const bool aborted = pass % 4 == 1;
    ASSERT_EQ(Walk(aborted ? random() % plan_.stages.size() : SIZE_MAX), "") << pass;
    EXPECT_EQ(from_map_, 0U) << pass;
    from_map_ = 0;
    // They grow, and so do their full blocks.
    for (const auto& sequence : sequences_) {
      if (aborted) continue;
      const std::vector<int32_t> more = Prompt(5, 100 * pass);
      ASSERT_OK(Pass(*kv_, *sequence, more));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Resident, KvReadsSweep,
                         testing::Values(uint64_t{0}, 2 * kMiB, kGiB, UINT64_MAX));

TEST_F(KvReadsTest, NeighboursInTheFileAreReadAtOnce) {
  Make(0);
  const KvSequence& sequence = Add(1000, 8 * kKvBlockTokens + 1, 8 * kKvBlockTokens);
  ASSERT_EQ(sequence.blocks.size(), 8U);
  ASSERT_EQ(reads_->Pitch(), kPitch);
  Begin(All());
  ASSERT_EQ(Walk(), "");
  EXPECT_EQ(from_map_, 0U);
  // Layer by layer the eight lie together, as far as LMDB had pages in a row.
  EXPECT_LE(reads_->reader().stats().reads, kShape.n_layers * 8 * 3 / 4);
}

// Then a layer's keys and values are more than the ring, and the next tile to read may be any.
TEST_F(KvReadsTest, NothingComesFromTheMapWhereNearlyAllTilesStay) {
  Make(0);
  const uint64_t all = resident_of_all_;
  for (uint64_t less = 100 * kKiB; less < 3 * kMiB; less += 200 * kKiB) {
    SCOPED_TRACE(less);
    sequences_.clear();
    Make(all - less);
    for (int32_t i = 0; i < 6; ++i) Add(1000 * (i + 1), 230, 32);
    from_map_ = 0;
    for (int pass = 0; pass < 4; ++pass) {
      Begin(All());
      ASSERT_EQ(Walk(), "");
      EXPECT_EQ(from_map_, 0U) << pass;
    }
  }
}

TEST_F(KvReadsTest, BlocksThatAreLargeForTheRingOrShareAPageComeFromTheMap) {
  for (const KvShape& shape : {KvShape{.n_layers = 4, .n_kv_heads = 40, .head_dim = 64},
                               KvShape{.n_layers = 4, .n_kv_heads = 1, .head_dim = 8}}) {
    sequences_.clear();
    Make(0, shape);
    const KvSequence& sequence = Add(1000, 70, 35);
    Begin(All());
    from_map_ = 0;
    ASSERT_EQ(Walk(), "");
    EXPECT_EQ(from_map_, sequence.blocks.size() * shape.n_layers);
    EXPECT_EQ(reads_->reader().stats().reads, 0U);
  }
}

TEST_F(KvReadsTest, WhatIsInRamIsNotRead) {
  Make(0);
  std::vector<std::byte> memory(KvPool::SlotBytes(kShape) * 6 + 64);
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  ASSERT_OK(kv_->UseRam({memory.data() + (AlignUp(address, 64) - address),
                         static_cast<size_t>(KvPool::SlotBytes(kShape)) * 6}));
  KvSequence& sequence = Add(1000, 70, 35);
  const KvPassRows rows = {&sequence, 1};
  ASSERT_OK(kv_->PlaceInRam({&rows, 1}, memory.data(), memory.data()));
  ASSERT_OK(kv_->BringRows({&rows, 1}));
  for (uint32_t layer = 0; layer < kShape.n_layers; ++layer) {
    ASSERT_EQ(CheckLayer(*kv_, sequence, {}, layer), "");  // fills the copies
  }
  ASSERT_FALSE(kv_->HasBlocksOutsideRam(sequence));
  Begin(All());
  ASSERT_EQ(Walk(), "");
  EXPECT_EQ(reads_->reader().stats().reads, 0U);
  EXPECT_EQ(from_map_, 0U);
  ASSERT_OK(kv_->UseRam({}));
}

TEST_F(KvReadsTest, WithoutACeilingTheRingIsGivenBackBehindThem) {
  Make(UINT64_MAX);
  Add(1000, 200, 64);
  const uint64_t ring_pages = AlignDown(plan_.ring_bytes, kReadAlignment);
  for (int pass = 0; pass < 3; ++pass) {
    Begin(All());
    ASSERT_EQ(Walk(), "");
    EXPECT_EQ(from_map_, 0U);
    EXPECT_EQ(arena_->InRam(0, ring_pages), 0U);
  }
}

TEST_F(KvReadsTest, AReaderThatRefusesLeavesThePassToTheMap) {
  Make(0);
  const KvSequence& sequence = Add(1000, 200, 64);
  refuse_ = true;
  Begin(All());
  ASSERT_EQ(Walk(), "");
  EXPECT_EQ(from_map_, sequence.blocks.size() * kShape.n_layers);
  EXPECT_EQ(reads_->reader().stats().reads, 0U);
  refuse_ = false;
  from_map_ = 0;
  Begin(All());
  ASSERT_EQ(Walk(), "");
  EXPECT_EQ(from_map_, 0U);
}

TEST_F(KvReadsTest, AFailedReadReachesAttentionAndTheNextPassWorks) {
  Make(0);
  Add(1000, 200, 64);
  Begin(All());
  fail_ = true;
  EXPECT_NE(Walk().find("Input/output error"), std::string::npos);
  fail_ = false;
  Begin(All());
  EXPECT_EQ(Walk(), "");
}

}  // namespace
}  // namespace thimble
