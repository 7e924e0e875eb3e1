#include "daemon/run/runner.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "daemon/run/arena.h"
#include "daemon/run/arena_room.h"
#include "daemon/run/attention.h"
#include "daemon/run/embedding.h"
#include "daemon/run/group_values.h"
#include "daemon/run/kernels.h"
#include "daemon/run/pass_check.h"
#include "daemon/run/pass_items.h"
#include "daemon/run/stage_math.h"
#include "daemon/run/tile_ring.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// Multiply-adds of a tile in one step: at 100 million a second 160 ms. At least kFewestRows rows at
// once, which share the decoding of a weight.
constexpr uint64_t kTileWork = 16'000'000;
constexpr uint32_t kFewestRows = 8;
// Multiply-adds of attention in one step: 40 ms on a Pi Zero at 100 million a second.
constexpr uint64_t kAttentionWork = 4'000'000;

uint64_t NowNs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

class StagedRunner final : public Runner {
 public:
  StagedRunner(const Model& model, const Plan& plan, RandomAccessFile& file, KvCache& kv,
               StageStore& store, std::unique_ptr<Arena> arena,
               std::unique_ptr<WeightReader> reader, std::unique_ptr<KvReads> kv_reads)
      : model_(model),
        plan_(plan),
        file_(file),
        kv_(kv),
        arena_(std::move(arena)),
        values_{model, plan, *arena_, store},
        reader_(std::move(reader)),
        kv_reads_(std::move(kv_reads)),
        ring_(plan, *arena_, *reader_, kv_reads_.get()),
        room_(plan, kv, *arena_),
        pass_(model, plan),
        embedding_(model, plan, *reader_, ring_) {}

  // The blocks in the arena go with it; what of them LMDB does not take is lost to sequences that
  // are still open, which then say so.
  ~StagedRunner() override { static_cast<void>(kv_.UseRam({})); }
  StagedRunner(const StagedRunner&) = delete;
  StagedRunner& operator=(const StagedRunner&) = delete;

  Status UseKvRam() {
    if (plan_.kv_bytes == 0) return {};
    const auto bytes = static_cast<size_t>(plan_.kv_bytes);
    return kv_.UseRam({arena_->Use(plan_.kv_offset, bytes), bytes});
  }

  Status Begin(std::span<const PassItem> items) override;
  Result<bool> Step() override;
  void Drop(size_t index) override;
  void Abort() override {
    running_ = false;
    tile_bytes_ = nullptr;
  }
  void Rest() override;
  bool Yield(uint64_t bytes) override;
  [[nodiscard]] uint64_t SpareInUse() const override { return room_.SpareInUse(); }
  [[nodiscard]] uint64_t Growth(uint64_t yielded, uint64_t enough) override {
    return room_.Growth(yielded, enough, running_);
  }

  [[nodiscard]] bool running() const override { return running_; }
  [[nodiscard]] size_t stage() const override { return stage_; }
  [[nodiscard]] const RunnerStats& stats() const override { return stats_; }
  [[nodiscard]] const WeightReader& reader() const override { return *reader_; }
  [[nodiscard]] ReadStats read_stats() const override {
    ReadStats stats = reader_->stats();
    if (!kv_reads_) return stats;
    const ReadStats& kv = kv_reads_->reader().stats();
    stats.bytes += kv.bytes;
    stats.reads += kv.reads;
    stats.stall_ns += kv.stall_ns;
    return stats;
  }
  [[nodiscard]] ArenaUse arena_use() const override {
    const uint64_t resident = AlignDown(plan_.resident_offset, kReadAlignment);
    return {arena_->InRam(0, resident), arena_->InRam(resident, plan_.peak_bytes)};
  }

 private:
  enum class Phase : uint8_t { kBegin, kTiles, kEnd };

  Status CheckFile();
  Result<bool> RunPart();  // true: the stage is complete
  bool RunRows(const Tile& tile, const std::byte* bytes);
  Status DeliverLogits(const Tile& tile);
  Status AppendRows(const ActiveItem& active, LmdbTxn* batch);
  Status AppendKv();
  Status EnterGroup(const Group& group);
  Status LeaveGroup();
  void PlaceBuffers();
  Status Complete();

  const Model& model_;
  const Plan& plan_;
  RandomAccessFile& file_;
  KvCache& kv_;
  // Declared before the reader: reads under way end before their buffers are unmapped.
  const std::unique_ptr<Arena> arena_;
  const GroupValues values_;
  const std::unique_ptr<WeightReader> reader_;
  const std::unique_ptr<KvReads> kv_reads_;
  TileRing ring_;
  ArenaRoom room_;
  PassItems pass_;
  EmbeddingWalk embedding_;

  bool running_ = false;
  bool wide_ = false;        // more than plan.step_rows
  Group group_;              // the running one, placed for this pass
  uint32_t last_stage_ = 0;  // of this pass
  uint32_t stage_ = 0;
  Phase phase_ = Phase::kBegin;
  uint32_t tile_ = 0;
  const std::byte* tile_bytes_ = nullptr;  // of tile_, once acquired
  uint32_t tile_row_ = 0;                  // the first row it has not been used for
  uint64_t stage_ns_ = 0;                  // spent in the stage so far
  AttentionWalk attention_;
  StageBuffers buffers_;
  RunnerStats stats_;
};

Status StagedRunner::CheckFile() {
  THIMBLE_ASSIGN_OR_RETURN(const FileIdentity now, file_.Identity());
  if (now == model_.identity) return {};
  return DataLossError("read " + file_.path() + ": the file has changed since it was loaded (" +
                       std::to_string(now.size_bytes) + " bytes now, " +
                       std::to_string(model_.identity.size_bytes) + " then)");
}

Status StagedRunner::Begin(std::span<const PassItem> items) {
  if (running_) return InternalError("begin a pass: one is running");
  THIMBLE_RETURN_IF_ERROR(CheckPass(model_, plan_, items));
  THIMBLE_RETURN_IF_ERROR(CheckFile());
  pass_.Set(items);
  // Without logits the pass is over when the last layer's keys and values are made.
  last_stage_ = static_cast<uint32_t>(plan_.stages.size()) - 1;
  if (pass_.n_logit_rows() == 0) {
    while (plan_.stages[last_stage_].kind != StageKind::kQkv) --last_stage_;
  }
  const bool wide = pass_.size() > plan_.step_rows;
  const uint64_t values_end = wide ? ValuesEnd(model_, plan_, pass_.size()) : plan_.step_end;
  const std::byte* arena = arena_->all().data();
  THIMBLE_RETURN_IF_ERROR(kv_.PlaceInRam(pass_.kv_rows(), arena + room_.KvFrom(values_end),
                                         arena + room_.SureKvFrom(values_end)));
  if (kv_reads_) kv_reads_->BeginPass(pass_.items(), last_stage_);
  ring_.BeginPass(plan_.stages[last_stage_].tile_end, values_end, room_.Limit());
  room_.Release(values_end);
  if (wide_ && !wide && !plan_.Streams()) room_.ReleaseWideValues();
  wide_ = wide;
  THIMBLE_RETURN_IF_ERROR(kv_.BringRows(pass_.kv_rows()));
  pass_.CutTrees(kv_);  // places and buffers may be larger than what is left needs
  stage_ = 0;
  phase_ = Phase::kBegin;
  running_ = true;
  return {};
}

bool StagedRunner::Yield(uint64_t bytes) {
  if (bytes == room_.yielded_bytes()) return true;
  if (tile_bytes_ != nullptr) return false;
  room_.GiveUp(bytes);
  const uint64_t values_end = running_ ? ring_.values_end() : plan_.step_end;
  kv_.GiveWay(arena_->all().data() + room_.KvFrom(values_end),
              [this](std::span<std::byte> memory) { room_.ReleaseSlot(memory); });
  ring_.Limit(room_.Limit());
  room_.Release(running_ ? ring_.values_end() : 0);
  return true;
}

void StagedRunner::Rest() {
  if (running_) return;
  room_.ReleaseAll();
}

void StagedRunner::Drop(size_t index) {
  pass_.Drop(index);
  if (pass_.all_dropped()) Abort();
}

// Binds the running stage's buffers to their places in the group.
void StagedRunner::PlaceBuffers() {
  const Stage& stage = plan_.stages[stage_];
  const auto place = [&](Value value) -> std::byte* {
    const Placement& placement = group_.values[static_cast<size_t>(value)];
    return placement.used ? arena_->Use(placement.offset, placement.bytes) : nullptr;
  };
  StageBuffers& b = buffers_;
  b.model = &model_;
  b.stage = &stage;
  b.rows = pass_.size();
  b.logit_rows = pass_.n_logit_rows();
  b.logit_row = pass_.logit_rows();
  b.forms = FormsAfter(model_, stage);
  b.x = reinterpret_cast<float*>(place(Value::kX));
  b.xn = place(Value::kXn);
  b.q = reinterpret_cast<float*>(place(Value::kQ));
  b.kv = reinterpret_cast<uint16_t*>(place(Value::kKv));
  b.kv_head_begin = PartsOf(model_, stage, Value::kKv).begin;
  b.kv_type = kv_.shape().type;
  b.kv_vector = kv_.shape().VectorHalves();
  b.att = reinterpret_cast<float*>(place(Value::kAtt));
  b.work = arena_->Use(group_.work.offset, group_.work.bytes);
  b.layout = LayoutWork(model_, stage, plan_.tiles, pass_.size(), pass_.n_logit_rows());
  b.cosine = pass_.cosine();
  b.sine = pass_.sine();
}

Status StagedRunner::EnterGroup(const Group& group) {
  group_ =
      wide_ ? PlaceGroup(model_, plan_, group.stage_begin, group.stage_end, pass_.size()) : group;
  return LoadInputs(values_, group_, {pass_.size(), pass_.n_logit_rows()});
}

Status StagedRunner::LeaveGroup() {
  return StoreOutputs(values_, group_, {pass_.size(), pass_.n_logit_rows()});
}

Status StagedRunner::DeliverLogits(const Tile& tile) {
  const auto* logits = reinterpret_cast<const float*>(buffers_.work + buffers_.layout.outputs);
  for (const ActiveItem& active : pass_.items()) {
    if (active.dropped) continue;
    for (uint32_t i = 0; i < active.item.n_logits; ++i) {
      const float* row = logits + size_t{active.first_logit_row + i} * tile.outputs;
      THIMBLE_RETURN_IF_ERROR(active.item.sink->OnLogits(i, tile.out_begin, {row, tile.outputs}));
    }
  }
  return {};
}

Status StagedRunner::AppendRows(const ActiveItem& active, LmdbTxn* batch) {
  const auto* rows = reinterpret_cast<const uint16_t*>(buffers_.work + buffers_.layout.kv_rows);
  return kv_.AppendRows(*active.item.sequence, buffers_.stage->layer, active.item.tokens,
                        rows + active.first_row * kv_.shape().RowHalves(), batch);
}

// One transaction for all items; where the map or the disk has no room for it, one for each item,
// since the cache then makes room by evicting.
Status StagedRunner::AppendKv() {
  const auto on_disk = std::ranges::count_if(pass_.items(), [this](const ActiveItem& active) {
    return !active.dropped && kv_.AppendsToDisk(*active.item.sequence,
                                                static_cast<uint32_t>(active.item.tokens.size()));
  });
  if (on_disk > 1) {
    const auto all = [&]() -> Status {
      THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, kv_.env().BeginWrite());
      for (const ActiveItem& active : pass_.items()) {
        if (!active.dropped) THIMBLE_RETURN_IF_ERROR(AppendRows(active, &txn));
      }
      return txn.Commit();
    };
    Status status = all();
    if (status.code() != StatusCode::kResourceExhausted) return status;
  }
  for (const ActiveItem& active : pass_.items()) {
    if (!active.dropped) THIMBLE_RETURN_IF_ERROR(AppendRows(active, nullptr));
  }
  return {};
}

// Some rows of a tile; true where there are more.
bool StagedRunner::RunRows(const Tile& tile, const std::byte* bytes) {
  const uint32_t rows = RowsOf(buffers_);
  const uint64_t row_work = tile.outputs * std::max<uint64_t>(tile.columns, 1);
  const uint64_t at_once =
      std::max<uint64_t>(kFewestRows, kTileWork / row_work / kFewestRows * kFewestRows);
  buffers_.row_begin = tile_row_;
  buffers_.row_end = static_cast<uint32_t>(std::min<uint64_t>(rows, tile_row_ + at_once));
  buffers_.next =
      rows == 1 ? ring_.Peek(tile_ + 1) : nullptr;  // of more rows computing takes longer
  RunTile(buffers_, tile, bytes);
  tile_row_ = buffers_.row_end;
  if (tile_row_ < rows) return true;
  tile_row_ = 0;
  tile_bytes_ = nullptr;
  return false;
}

Result<bool> StagedRunner::RunPart() {
  const Stage& stage = plan_.stages[stage_];
  switch (stage.kind) {
    case StageKind::kEmbed:
      return embedding_.Step(buffers_, pass_.items());
    case StageKind::kAttention:
      return attention_.Step(buffers_, pass_.items(), kv_, ring_, kAttentionWork);
    case StageKind::kSample:
      return true;
    default:
      break;
  }
  if (tile_ < stage.tile_end) {
    // A tile whose rows take several steps stays acquired between them.
    if (tile_bytes_ == nullptr) {
      THIMBLE_ASSIGN_OR_RETURN(tile_bytes_, ring_.Acquire(tile_));
    }
    const std::byte* bytes = tile_bytes_;
    const Tile& tile = plan_.tiles[tile_];
    const uint64_t begin = NowNs();
    const bool more = RunRows(tile, bytes);
    stage_ns_ += NowNs() - begin;
    if (more) return false;
    ++tile_;
    if (stage.kind == StageKind::kLogits) {
      const bool biased = tile_ < stage.tile_end && plan_.tiles[tile_].bias;
      if (!biased) THIMBLE_RETURN_IF_ERROR(DeliverLogits(tile));
    }
  }
  return tile_ == stage.tile_end;
}

Result<bool> StagedRunner::Step() {
  if (!running_) return InternalError("step: no pass is running");
  const auto fail = [&](Status status) -> Result<bool> {
    Abort();
    return status;
  };
  const Stage& stage = plan_.stages[stage_];
  const Group& group = plan_.groups[stage.group];
  if (phase_ == Phase::kBegin) {
    if (stage_ == group.stage_begin) {
      if (Status status = EnterGroup(group); !status.ok()) return fail(std::move(status));
    }
    PlaceBuffers();
    BeginStage(buffers_);
    if (stage.kind == StageKind::kAttention) attention_.Begin(buffers_);
    tile_ = stage.tile_begin;
    tile_bytes_ = nullptr;
    tile_row_ = 0;
    embedding_.Begin();
    stage_ns_ = 0;
    phase_ = Phase::kTiles;
  }
  if (phase_ == Phase::kTiles) {
    const bool timed_by_tile = stage.tile_begin != stage.tile_end;
    // The embedding waits for its rows itself, and attention for keys and values.
    const uint64_t begin = timed_by_tile ? 0 : NowNs() - read_stats().stall_ns;
    Result<bool> done = RunPart();
    if (!timed_by_tile) stage_ns_ += NowNs() - read_stats().stall_ns - begin;
    if (!done.ok()) return fail(done.status());
    if (!*done) return false;
    phase_ = Phase::kEnd;
  }
  EndStage(buffers_);
  if (stage.kind != StageKind::kSample) {
    stats_.stage_seconds[static_cast<size_t>(stage.kind)].Observe(static_cast<double>(stage_ns_) *
                                                                  1e-9);
  }
  if (stage.kind == StageKind::kQkv && stage.last_of_layer) {
    if (Status status = AppendKv(); !status.ok()) return fail(std::move(status));
  }
  if (stage_ == last_stage_) {
    if (Status status = Complete(); !status.ok()) return fail(std::move(status));
    return true;
  }
  if (stage_ + 1 == group.stage_end) {
    if (Status status = LeaveGroup(); !status.ok()) return fail(std::move(status));
  }
  ++stage_;
  phase_ = Phase::kBegin;
  return false;
}

Status StagedRunner::Complete() {
  // A file that changed since Begin may have given any weights: nothing of this pass is kept.
  THIMBLE_RETURN_IF_ERROR(CheckFile());
  THIMBLE_RETURN_IF_ERROR(pass_.Commit(kv_));
  running_ = false;
  ++stats_.passes;
  stats_.rows += pass_.size();
  stats_.arena_peak_bytes = arena_->peak_bytes();
  return {};
}

}  // namespace

Result<std::unique_ptr<Runner>> Runner::Open(const Model& model, const Plan& plan,
                                             RandomAccessFile& file, ReaderBackend backend,
                                             KvCache& kv, StageStore& store) {
  THIMBLE_ASSIGN_OR_RETURN(
      std::unique_ptr<Arena> arena,
      Arena::Map(plan.peak_bytes, std::max(plan.kv_offset, plan.resident_end)));
  // What is registered is held, and with it the huge page in which it ends.
  const uint64_t held_end = HeldEnd(plan);
  arena->UseSmallPages(held_end, AlignUp(held_end, kHugePageBytes));
  // Only the ring and the embedding's buffers are read into: the resident set needs no registering.
  const std::span<std::byte> read_into =
      arena->all().first(plan.Streams() ? static_cast<size_t>(plan.step_end) : 0);
  THIMBLE_ASSIGN_OR_RETURN(std::unique_ptr<WeightReader> reader,
                           WeightReader::Open(file, backend, read_into));
  // Where all weights stay and keys and values have no RAM, the page cache serves.
  std::unique_ptr<KvReads> kv_reads;
  if (plan.Streams() || plan.kv_bytes > 0) {
    THIMBLE_ASSIGN_OR_RETURN(kv_reads, KvReads::Open(plan, kv, backend));
  }
  auto runner = std::make_unique<StagedRunner>(model, plan, file, kv, store, std::move(arena),
                                               std::move(reader), std::move(kv_reads));
  THIMBLE_RETURN_IF_ERROR(runner->UseKvRam());
  return std::unique_ptr<Runner>(std::move(runner));
}

}  // namespace thimble
