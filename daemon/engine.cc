#include "daemon/engine.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "daemon/ceiling/budget.h"
#include "daemon/ceiling/cgroup_fs.h"
#include "daemon/ceiling/program_pages.h"
#include "daemon/figures.h"
#include "daemon/log.h"
#include "storage/cache_need.h"

namespace thimble {
namespace {

// A 32-bit process has 3 GiB of addresses for everything: each map stays under 1 GiB.
constexpr uint64_t kLargestMap = sizeof(void*) == 4 ? 960 * kMiB : UINT64_MAX;

// What the passes of a plan leave in the stage store, at most: every value of every row.
uint64_t StageOutputBytes(const Model& model, const Plan& plan) {
  const uint64_t heads = uint64_t{model.n_heads} * model.head_dim;
  const uint64_t kv_heads = uint64_t{model.n_kv_heads} * model.head_dim;
  const uint64_t floats = 2 * uint64_t{model.hidden_size} + 2 * heads + kv_heads;
  // Where any token may be drawn, the logits too.
  const uint64_t logits = uint64_t{plan.max_logit_rows} * model.vocab_size;
  return (plan.max_rows * floats + logits) * sizeof(float);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Open(const Config& config) {
  std::unique_ptr<Engine> engine(new Engine());
  THIMBLE_RETURN_IF_ERROR(engine->OpenCeiling(config));
  THIMBLE_RETURN_IF_ERROR(engine->OpenModel(config));
  THIMBLE_RETURN_IF_ERROR(engine->OpenState(config));
  THIMBLE_RETURN_IF_ERROR(engine->MakePlanFor(config));
  THIMBLE_RETURN_IF_ERROR(engine->OpenRunner(config));
  THIMBLE_RETURN_IF_ERROR(engine->OpenScheduler(config));
  // What parsing the model and building its vocabulary's index left there, 15 MB for SmolLM2-135M,
  // is not needed again.
  engine->file_->DropPageCache();
  THIMBLE_RETURN_IF_ERROR(engine->state_.cache->DropPageCache());
  return engine;
}

Engine::~Engine() { Close(); }

void Engine::Close() {
  scheduler_.reset();
  runner_.reset();
  journal_.reset();
  store_.reset();
  kv_.reset();
  tokenizer_.reset();
  vocab_.reset();
  if (!std::exchange(state_open_, false)) return;
  const Status status = state_.Close();
  if (!status.ok()) LogLine(LogLevel::kError, "state").Add("error", status.ToString());
}

Status Engine::OpenCeiling(const Config& config) {
  THIMBLE_ASSIGN_OR_RETURN(ceiling_,
                           Ceiling::Establish(config.ram_ceiling_bytes, config.enforcement));
  LogLine(LogLevel::kInfo, "ceiling")
      .AddBytes("ceiling", ceiling_->ceiling_bytes())
      .Add("enforcement", EnforcementName(ceiling_->enforcement()))
      .Add("group", ceiling_->directory())
      .Add("own_group", ceiling_->own_group() ? "yes" : "no");
  for (const std::string& note : ceiling_->notes()) {
    LogLine(LogLevel::kInfo, "ceiling").Add("note", note);
  }
  pressure_ = ceiling_->Pressure();
  return {};
}

Status Engine::OpenModel(const Config& config) {
  THIMBLE_ASSIGN_OR_RETURN(const std::string path, FindModelFile(config));
  THIMBLE_ASSIGN_OR_RETURN(file_, OpenFile(path));
  THIMBLE_ASSIGN_OR_RETURN(model_, LoadModel(*file_));
  THIMBLE_ASSIGN_OR_RETURN(context_tokens_, ContextTokens(config, model_->context_tokens));
  LogLine(LogLevel::kInfo, "model")
      .Add("file", path)
      .Add("name", model_->name)
      .Add("architecture", model_->architecture)
      .AddBytes("size", model_->gguf.file_bytes)
      .Add("layers", model_->n_layers)
      .Add("hidden_size", model_->hidden_size)
      .Add("vocabulary", model_->vocab_size)
      .Add("context", context_tokens_)
      .Add("model_context", model_->context_tokens);
  return {};
}

Status Engine::OpenState(const Config& config) {
  StateDirOptions options;
  options.cache_bytes = std::min(config.cache_bytes, kLargestMap);
  THIMBLE_ASSIGN_OR_RETURN(state_, StateDir::Open(config.state_dir, options));
  state_open_ = true;
  LogLine(LogLevel::kInfo, "state")
      .Add("directory", config.state_dir)
      .AddBytes("cache_size", options.cache_bytes);
  for (const std::string& note : state_.notes) {
    LogLine(LogLevel::kNotice, "state").Add("note", note);
  }
  THIMBLE_ASSIGN_OR_RETURN(vocab_, VocabIndex::Open(*state_.cache, model_->fingerprint));
  THIMBLE_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Open(*model_, *file_, *vocab_));
  const KvShape shape{.n_layers = model_->n_layers,
                      .n_kv_heads = model_->n_kv_heads,
                      .head_dim = model_->head_dim,
                      .type = config.kv_type};
  THIMBLE_ASSIGN_OR_RETURN(
      kv_, KvCache::Open(*state_.cache, model_->fingerprint, shape, KvQuota(options.cache_bytes)));
  // Under a ceiling the kernel takes it back where it must; without one the peak is what counts.
  if (ceiling_->ceiling_bytes() != UINT64_MAX) {
    THIMBLE_ASSIGN_OR_RETURN(const uint64_t used, state_.cache->UsedBytes());
    kv_->KeepPageCache(used);
  }
  if (pressure_) pressure_->SetRelief([this] { kv_->ReleasePages(); });
  THIMBLE_ASSIGN_OR_RETURN(store_, StageStore::Open(*state_.cache));
  THIMBLE_ASSIGN_OR_RETURN(journal_, Journal::Open(*state_.journal));
  return {};
}

Status Engine::MakePlanFor(const Config& config) {
  PlanOptions options;
  options.budget_bytes =
      ceiling_->ceiling_bytes() == UINT64_MAX ? UINT64_MAX : BudgetBytes(ceiling_->ceiling_bytes());
  if (pressure_) options.spare_bytes = SpareBytes(ceiling_->ceiling_bytes());
  options.granularity = config.granularity;
  // A prompt's chunk shares the pass with the tokens of other requests, and lies over the resident
  // set for as long as it is computed.
  SetRows(config.prompt_chunk, config.max_active, config.draft_tokens, &options);
  SetKv(KvPool::SlotBytes(kv_->shape()), config.max_active, context_tokens_, &options);
  THIMBLE_ASSIGN_OR_RETURN(speeds_, ProbeSpeed(*file_, config.reader, *model_));
  LogLine(LogLevel::kInfo, "speed")
      .AddBytes("flash_per_second", static_cast<uint64_t>(speeds_.flash_bytes_per_second))
      .AddBytes("processor_per_second", static_cast<uint64_t>(speeds_.processor_bytes_per_second))
      .AddBytes("processor_row_per_second",
                static_cast<uint64_t>(speeds_.processor_row_bytes_per_second));
  options.speeds = speeds_;
  THIMBLE_ASSIGN_OR_RETURN(plan_, MakePlan(*model_, options));
  LogLine(LogLevel::kInfo, "plan")
      .Add("granularity", GranularityName(config.granularity))
      .Add("stages", plan_.stages.size())
      .Add("groups", plan_.groups.size())
      .Add("rows", plan_.max_rows)
      .Add("shared_prompt_rows", plan_.shared_prompt_rows)
      .AddBytes("budget", options.budget_bytes)
      .AddBytes("spare", plan_.options.spare_bytes)
      .AddBytes("peak", plan_.peak_bytes)
      .AddBytes("resident", plan_.resident_bytes)
      .AddBytes("read_per_pass", plan_.pass_bytes);
  return {};
}

Status Engine::OpenRunner(const Config& config) {
  THIMBLE_ASSIGN_OR_RETURN(runner_,
                           Runner::Open(*model_, plan_, *file_, config.reader, *kv_, *store_));
  LogLine(LogLevel::kInfo, "reader").Add("backend", ReaderBackendName(runner_->reader().backend()));
  for (const std::string& refusal : runner_->reader().refusals()) {
    LogLine(LogLevel::kNotice, "reader").Add("refused", refusal);
  }
  return {};
}

Status Engine::OpenScheduler(const Config& config) {
  SchedulerOptions options;
  options.max_active = std::min({config.max_active, plan_.max_rows, plan_.max_logit_rows});
  options.max_queue = config.max_queue;
  options.prompt_chunk =
      config.prompt_chunk == 0 ? plan_.max_rows : std::min(config.prompt_chunk, plan_.max_rows);
  options.shared_prompt_rows = plan_.shared_prompt_rows;
  options.context_tokens = context_tokens_;
  options.max_rows = plan_.max_rows;
  options.max_logit_rows = plan_.max_logit_rows;
  options.draft_tokens = config.draft_tokens;
  max_active_ = options.max_active;
  max_queue_ = options.max_queue;
  if (max_active_ < config.max_active) {
    LogLine(LogLevel::kNotice, "queue")
        .Add("max_active", max_active_)
        .Add("asked", config.max_active)
        .Add("why", "the plan's passes have no more rows within the budget");
  }
  THIMBLE_RETURN_IF_ERROR(CheckCacheSize(config));
  THIMBLE_ASSIGN_OR_RETURN(scheduler_, Scheduler::Open(options, *model_, *tokenizer_, *runner_,
                                                       *kv_, *store_, *journal_));
  return {};
}

Status Engine::CheckCacheSize(const Config& config) const {
  const uint64_t given = std::min(config.cache_bytes, kLargestMap);
  CacheNeed need;
  need.shape = kv_->shape();
  need.sequences = max_active_;
  need.context_tokens = context_tokens_;
  need.vocab_size = model_->vocab_size;
  need.stage_output_bytes = StageOutputBytes(*model_, plan_);
  const uint64_t needed = CacheBytesNeeded(need);
  if (given >= needed) return {};
  return InvalidArgumentError("--cache-size " + FormatBytes(given) + ": " +
                              std::to_string(max_active_) + " requests (--max-active) of " +
                              std::to_string(context_tokens_) + " tokens (--context) need " +
                              std::to_string(needed / kMiB) +
                              "M for their keys and values; give that, or lower one of the others");
}

uint64_t Engine::progress() const {
  return runner_->stats().passes + runner_->stage() + runner_->read_stats().bytes +
         scheduler_->status().generated_tokens_total;
}

void Engine::Rest() {
  runner_->Rest();
  state_.cache->ReleasePageCache();
  state_.journal->ReleasePageCache();
  DropProgramPageCache();
  ::malloc_trim(0);
}

std::chrono::milliseconds Engine::KeepRoom() {
  if (!pressure_) return std::chrono::milliseconds::max();
  const uint64_t spare = plan_.options.spare_bytes;
  // Who idles looks seldom, and has no use for the spare; who begins to work looks before it is
  // used again.
  const bool idle = !scheduler_->HasWork();
  if (idle_ && !idle) pressure_->LookNext();
  const uint64_t at_rest = idle ? runner_->SpareInUse() : 0;
  const auto with_spare = [&](uint64_t yielded) { return std::max(yielded, at_rest); };
  pressure_->SetSpare(spare, scheduler_->n_active());
  const uint64_t before = pressure_->yielded_bytes();
  // What the gauge says next counts on what it has said.
  if (!runner_->Yield(with_spare(before))) return pressure_->IdlePeriod();
  idle_ = idle;
  const uint64_t wanted = pressure_->Yield(std::max(MovableBytes(plan_), spare),
                                           [&](uint64_t yielded, uint64_t enough) {
                                             return runner_->Growth(with_spare(yielded), enough);
                                           });
  runner_->Yield(with_spare(wanted));
  const bool pressed = wanted >= spare + PressureGauge::kUnit;
  if (pressed != (before >= spare + PressureGauge::kUnit)) {
    LogLine(pressed ? LogLevel::kNotice : LogLevel::kInfo, "pressure")
        .Add("note", pressed ? "the control group is nearly full: resident weights give way"
                             : "the resident weights have their room again")
        .AddBytes("left", pressure_->left_bytes());
  }
  return pressure_->IdlePeriod();
}

DaemonStatus Engine::Describe() const {
  DaemonStatus status;
  status.version = THIMBLE_VERSION;
  status.model_name = model_->name;
  status.architecture = model_->architecture;
  status.model_bytes = plan_.model_bytes;
  status.context_tokens = context_tokens_;
  status.uptime_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();

  const bool none = ceiling_->ceiling_bytes() == UINT64_MAX;
  status.ceiling_bytes = none ? 0 : ceiling_->ceiling_bytes();
  status.enforcement = EnforcementName(ceiling_->enforcement());
  status.control_group = ceiling_->directory();
  status.notes = ceiling_->notes();
  Result<CeilingUsage> usage = ceiling_->Usage();
  if (usage.ok()) {
    status.memory = *usage;
    status.owners = SplitByOwner(*usage, runner_->arena_use());
  } else {
    status.notes.push_back(usage.status().ToString());
  }

  const RunnerStats& run = runner_->stats();
  status.plan_peak_bytes = plan_.peak_bytes;
  status.arena_peak_bytes = run.arena_peak_bytes;
  status.resident_bytes = plan_.resident_bytes;
  if (pressure_) {
    const uint64_t spare = plan_.options.spare_bytes;
    const uint64_t yielded = pressure_->yielded_bytes();
    status.yielded_bytes = std::min(yielded - std::min(yielded, spare), MovableBytes(plan_));
  }
  status.granularity = GranularityName(plan_.options.granularity);
  status.groups = static_cast<uint32_t>(plan_.groups.size());
  if (const size_t next = runner_->stage(); next < plan_.stages.size()) {
    const Stage& stage = plan_.stages[next];
    status.stage = StageKindName(stage.kind);
    status.stage_index = static_cast<uint32_t>(next);
    const bool in_layer = stage.kind > StageKind::kEmbed && stage.kind < StageKind::kFinalNorm;
    if (in_layer) status.stage += " of layer " + std::to_string(stage.layer);
  }
  status.pass_running = runner_->running();
  status.stage_seconds = run.stage_seconds;
  status.passes = run.passes;
  status.pass_rows = run.rows;
  status.requests = scheduler_->status();
  status.stage_seconds[static_cast<size_t>(StageKind::kSample)] = status.requests.sample_seconds;
  status.max_active = max_active_;
  status.max_queue = max_queue_;
  status.prefix_hit_tokens = kv_->stats().prefix_hit_tokens;

  const WeightReader& reader = runner_->reader();
  status.flash_bytes_per_second = speeds_.flash_bytes_per_second;
  status.processor_bytes_per_second = speeds_.processor_bytes_per_second;
  status.reader = ReaderBackendName(reader.backend());
  status.reader_refusals = reader.refusals();
  const ReadStats read = runner_->read_stats();
  status.flash_bytes_read = read.bytes;
  status.flash_stall_seconds = static_cast<double>(read.stall_ns) * 1e-9;
  status.stage_bytes_written = store_->bytes_written();
  if (const Result<std::string> io = KernelCgroupFs().Read("/proc/self/io"); io.ok()) {
    status.flash_bytes_written = WriteBytes(*io);
  }
  return status;
}

}  // namespace thimble
