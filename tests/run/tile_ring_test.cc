// The ring over a reader whose bytes tell their offset: right bytes in every order of passes, reads
// kept under way, each streamed byte read once a pass, small neighbours read together, and errors
// that name the tensor.
#include "daemon/run/tile_ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "storage/base/bytes.h"
#include "tests/plan/fake_model.h"

namespace thimble {
namespace {

std::byte ByteAt(uint64_t offset) {
  return static_cast<std::byte>((offset * 2654435761U) >> 13U ^ offset);
}

// Brings a span's bytes when they are waited for, the last moment that is allowed.
class LazyReader final : public WeightReader {
 public:
  Result<uint32_t> Start(uint64_t offset, uint64_t bytes, std::byte* buffer) override {
    if (pending_.size() == kMaxInFlight) return ResourceExhaustedError("too many");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer) % kReadAlignment, 0U);
    // The kernel writes whenever it likes from now on.
    std::memset(buffer, 0xEE, ReadBufferBytes(offset, bytes));
    pending_[++ticket_] = {offset, bytes, buffer};
    most_pending = std::max(most_pending, pending_.size());
    ++stats_.reads;
    stats_.bytes += bytes;
    return ticket_;
  }
  Status Wait(uint32_t ticket) override {
    const Read read = pending_.at(ticket);
    pending_.erase(ticket);
    if (fail) return UnavailableError("Input/output error");
    stats_.stall_ns += stall_ns;
    for (uint64_t i = 0; i < read.bytes; ++i) {
      read.buffer[read.offset % kReadAlignment + i] = ByteAt(read.offset + i);
    }
    return {};
  }
  [[nodiscard]] bool Arrived(uint32_t /*ticket*/) const override { return arrived; }
  [[nodiscard]] ReaderBackend backend() const override { return own_backend; }
  [[nodiscard]] size_t n_pending() const { return pending_.size(); }
  [[nodiscard]] uint64_t pending_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [ticket, read] : pending_) bytes += ReadBufferBytes(read.offset, read.bytes);
    return bytes;
  }

  bool fail = false;
  bool arrived = true;
  uint64_t stall_ns = 0;  // of each wait, as it is told
  ReaderBackend own_backend = ReaderBackend::kAuto;
  size_t most_pending = 0;

 private:
  struct Read {
    uint64_t offset, bytes;
    std::byte* buffer;
  };
  std::map<uint32_t, Read> pending_;
  uint32_t ticket_ = 0;
};

class TileRingTest : public testing::Test {
 protected:
  // With room for so many bytes of resident tiles; UINT64_MAX: without a ceiling.
  void Make(uint64_t resident_bytes) {
    FakeShape shape;
    shape.n_layers = 3;
    shape.vocab_size = 4000;
    model_ = MakeFakeModel(shape);
    PlanOptions options;
    options.tile_bytes = 128 * kKiB;
    options.budget_bytes = UINT64_MAX;
    options.max_rows = 1;
    Result<Plan> all = MakePlan(*model_, options);
    ASSERT_TRUE(all.ok()) << all.status().ToString();
    if (resident_bytes != UINT64_MAX) {
      options.budget_bytes = all->peak_bytes - all->resident_bytes + resident_bytes;
    }
    Result<Plan> plan = MakePlan(*model_, options);
    ASSERT_TRUE(plan.ok()) << plan.status().ToString();
    plan_ = std::move(*plan);
    Result<std::unique_ptr<Arena>> arena = Arena::Map(plan_.peak_bytes);
    ASSERT_TRUE(arena.ok());
    arena_ = std::move(*arena);
    ring_ = std::make_unique<TileRing>(plan_, *arena_, reader_);
  }

  void Walk(uint32_t pass_end, uint32_t stop_at) {
    ring_->BeginPass(pass_end, 0, UINT64_MAX);
    for (uint32_t t = 0; t < stop_at; ++t) {
      const Result<const std::byte*> bytes = ring_->Acquire(t);
      ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
      const Tile& tile = plan_.tiles[t];
      for (uint64_t i = 0; i < tile.bytes; ++i) {
        if ((*bytes)[i] == ByteAt(tile.offset + i)) continue;
        FAIL() << "tile " << t << " of " << tile.tensor->name << ", byte " << i;
      }
    }
  }

  // Passes of the next 100 MiB after which what is used is evicted.
  int PassesThatEvict() {
    const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
    const uint64_t until = reader_.stats().bytes + 100 * kMiB;
    int passes = 0;
    while (reader_.stats().bytes < until && !HasFatalFailure()) {
      Walk(n_tiles, n_tiles);
      if (ring_->eviction() != Eviction::kNone) ++passes;
    }
    return passes;
  }

  // In a pass over a flash that answers nothing before it is waited for, once it is in full swing.
  uint64_t MostUnderWay() {
    const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
    Walk(n_tiles, n_tiles);
    reader_.arrived = false;
    ring_->BeginPass(n_tiles, 0, UINT64_MAX);
    uint64_t most = 0;
    for (uint32_t t = 0; t < n_tiles; ++t) {
      EXPECT_TRUE(ring_->Acquire(t).ok());
      if (t > n_tiles / 4) most = std::max(most, reader_.pending_bytes());
    }
    return most;
  }

  std::unique_ptr<Model> model_;
  Plan plan_;
  LazyReader reader_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<TileRing> ring_;
};

// The parameter: bytes of resident tiles.
class TileRingSweep : public TileRingTest, public testing::WithParamInterface<uint64_t> {};

TEST_P(TileRingSweep, BringsEveryTileWholeInPassesThatEndAnywhere) {
  Make(GetParam());
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  std::mt19937 random(5);
  for (int pass = 0; pass < 12; ++pass) {
    // Whole passes, prompts' passes without logits, and passes that were aborted.
    const uint32_t end = pass % 3 == 1 ? n_tiles / 2 + random() % (n_tiles / 2) : n_tiles;
    Walk(end, pass % 4 == 3 ? 1 + random() % end : end);
    if (HasFatalFailure()) return;
  }
}

TEST_P(TileRingSweep, ReadsEachStreamedByteOnceAPass) {
  Make(GetParam());
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  Walk(n_tiles, n_tiles);
  Walk(n_tiles, n_tiles);
  const uint64_t before = reader_.stats().bytes;
  constexpr uint64_t kPasses = 5;
  for (uint64_t pass = 0; pass < kPasses; ++pass) Walk(n_tiles, n_tiles);
  // What lies between two tiles of one read, less than a page, is read with them.
  const uint64_t read = reader_.stats().bytes - before;
  EXPECT_GE(read, kPasses * plan_.pass_bytes);
  EXPECT_LE(read, kPasses * (plan_.pass_bytes + plan_.pass_bytes / 100));
}

TEST_P(TileRingSweep, TellsWhereTheNextTileIsOnceItHasArrived) {
  Make(GetParam());
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  Walk(n_tiles, n_tiles);
  ring_->BeginPass(n_tiles, 0, UINT64_MAX);
  uint32_t told = 0;
  uint32_t large = 0;
  const std::byte* peeked = nullptr;
  for (uint32_t t = 0; t < n_tiles; ++t) {
    const Result<const std::byte*> bytes = ring_->Acquire(t);
    ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
    if (plan_.tiles[t].bytes > kSmallTile) {
      ++large;
      if (peeked != nullptr) {
        ASSERT_EQ(peeked, *bytes) << "tile " << t;
        ++told;
      }
    }
    peeked = ring_->Peek(t + 1);
  }
  EXPECT_EQ(peeked, nullptr) << "the pass is over";
  // All but the first, and the last of a read where a resident tile lies between two of them.
  EXPECT_GE(told + 1, plan_.pass_bytes == 0 ? large : large / 2);
}

TEST_F(TileRingTest, KeepsReadsUnderWayWhileATileIsUsed) {
  Make(3 * kMiB);
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  Walk(n_tiles, n_tiles);
  ASSERT_GT(plan_.pass_bytes, 2 * plan_.ring_bytes);
  ring_->BeginPass(n_tiles, 0, UINT64_MAX);
  uint32_t starved = 0;
  for (uint32_t t = 0; t < n_tiles; ++t) {
    ASSERT_TRUE(ring_->Acquire(t).ok());
    if (reader_.n_pending() == 0) ++starved;
  }
  // Behind the largest tiles the ring's end may have to stay empty for a moment.
  EXPECT_LE(starved, n_tiles / 20) << "of " << n_tiles;
  EXPECT_LT(reader_.most_pending, size_t{WeightReader::kMaxInFlight})
      << "one operation is left for embedding rows";
}

TEST_F(TileRingTest, OfFourSpansOneIsKeptFreeWhereReadsTakeTheirTime) {
  Make(3 * kMiB);
  ASSERT_EQ(plan_.ring_bytes / plan_.span_bytes, 4U);
  const uint64_t most = MostUnderWay();
  EXPECT_LE(most, plan_.ring_bytes - plan_.span_bytes);
  EXPECT_GT(most, plan_.ring_bytes - 2 * plan_.span_bytes);
}

TEST_F(TileRingTest, OfFiveSpansTwoAreKeptFreeWhereReadsTakeTheirTime) {
  Make(4 * kMiB);
  ASSERT_EQ(plan_.ring_bytes / plan_.span_bytes, 5U);
  const uint64_t most = MostUnderWay();
  EXPECT_LE(most, plan_.ring_bytes - 2 * plan_.span_bytes);
  EXPECT_GT(most, plan_.ring_bytes - 3 * plan_.span_bytes);
}

TEST_F(TileRingTest, WhereAllTilesStayEachIsReadOnceAndTheRingIsGivenBack) {
  Make(UINT64_MAX);
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  ASSERT_FALSE(plan_.Streams());
  const uint64_t ring_pages = AlignDown(plan_.ring_bytes, kReadAlignment);
  // A prompt's pass comes first, which needs no logits.
  Walk(n_tiles / 2, n_tiles / 2);
  EXPECT_GT(arena_->InRam(0, ring_pages), 0U);
  Walk(n_tiles, n_tiles);
  EXPECT_EQ(reader_.n_pending(), 0U);
  EXPECT_EQ(arena_->InRam(0, ring_pages), 0U);
  EXPECT_GE(reader_.stats().bytes, plan_.model_bytes);
  EXPECT_LE(reader_.stats().bytes, plan_.model_bytes + plan_.model_bytes / 100);
  Walk(n_tiles, n_tiles);
  EXPECT_LE(reader_.stats().bytes, plan_.model_bytes + plan_.model_bytes / 100);
  // Keys and values may lie over tiles for a while: these pass through the ring again.
  ring_->BeginPass(n_tiles, 0, plan_.resident_offset + plan_.resident_bytes / 2);
  for (uint32_t t = 0; t < n_tiles; ++t) {
    const Result<const std::byte*> bytes = ring_->Acquire(t);
    ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
    ASSERT_EQ((*bytes)[plan_.tiles[t].bytes - 1],
              ByteAt(plan_.tiles[t].offset + plan_.tiles[t].bytes - 1));
  }
  Walk(n_tiles, n_tiles);
  EXPECT_EQ(arena_->InRam(0, ring_pages), 0U);
}

INSTANTIATE_TEST_SUITE_P(Resident, TileRingSweep,
                         testing::Values(uint64_t{0}, 3 * kMiB, 20 * kMiB, kGiB));

TEST_F(TileRingTest, NeighboursAreReadAtOnce) {
  Make(0);
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  Walk(n_tiles, n_tiles);
  const uint64_t before = reader_.stats().reads;
  Walk(n_tiles, n_tiles);
  // Norms and biases of some KiB follow one another, and a matrix.
  EXPECT_LT(reader_.stats().reads - before, n_tiles);
}

// A matrix's tiles lie one behind the other in the file, their biases elsewhere: small tiles that
// stay do not part what is read at once.
TEST_F(TileRingTest, WhatIsReadAtOnceGoesOnBehindSmallTilesThatStay) {
  Make(3 * kMiB);
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  size_t streamed = 0;
  size_t small = 0;
  for (const Tile& tile : plan_.tiles) {
    streamed += tile.resident() ? 0 : 1;
    small += tile.resident() && tile.resident_offset >= plan_.small_offset ? 1 : 0;
  }
  ASSERT_GT(small, 0U);
  Walk(n_tiles, n_tiles);
  const uint64_t before = reader_.stats().reads;
  Walk(n_tiles, n_tiles);
  EXPECT_LT(reader_.stats().reads - before, streamed * 3 / 4);
}

// Values of a wide pass lie over small tiles, too; what was read ahead across them is given up.
TEST_F(TileRingTest, SmallTilesThatGaveWayComeBackRight) {
  Make(3 * kMiB);
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  Walk(n_tiles, n_tiles);
  for (uint32_t pass = 0; pass < 6; ++pass) {
    const uint64_t values_end = pass % 2 == 0 ? plan_.peak_bytes : 0;
    ring_->BeginPass(n_tiles, values_end, UINT64_MAX);
    if (values_end > 0) {
      std::memset(arena_->Use(plan_.step_end, plan_.peak_bytes - plan_.step_end), 0x77,
                  plan_.peak_bytes - plan_.step_end);
    }
    for (uint32_t t = 0; t < n_tiles; ++t) {
      const Result<const std::byte*> bytes = ring_->Acquire(t);
      ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
      ASSERT_EQ((*bytes)[0], ByteAt(plan_.tiles[t].offset)) << t;
      ASSERT_EQ((*bytes)[plan_.tiles[t].bytes - 1],
                ByteAt(plan_.tiles[t].offset + plan_.tiles[t].bytes - 1))
          << t;
    }
  }
}

TEST_F(TileRingTest, AnErrorNamesTheTensorAndTheNextPassWorks) {
  Make(2 * kMiB);
  const auto n_tiles = static_cast<uint32_t>(plan_.tiles.size());
  Walk(n_tiles, n_tiles / 2);
  reader_.fail = true;
  uint32_t tile = n_tiles / 2;
  Result<const std::byte*> bytes = ring_->Acquire(tile);
  while (bytes.ok()) bytes = ring_->Acquire(++tile);
  EXPECT_EQ(bytes.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(bytes.status().message(),
            "read " + plan_.tiles[tile].tensor->name + ": Input/output error");
  reader_.fail = false;
  Walk(n_tiles, n_tiles);
}

TEST_F(TileRingTest, EvictionIsTriedWhileTheFlashIsWaitedFor) {
  Make(0);
  EXPECT_EQ(PassesThatEvict(), 0);
  reader_.stall_ns = 1000000000;
  EXPECT_EQ(PassesThatEvict() > 0, EvictionsHere().size() > 1);
  // Through the page cache it is this core that writes the ring.
  reader_.own_backend = ReaderBackend::kBufferedPread;
  Make(0);
  EXPECT_EQ(PassesThatEvict(), 0);
}

}  // namespace
}  // namespace thimble
