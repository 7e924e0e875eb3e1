#include "daemon/http/events.h"

#include "daemon/http/json_text.h"

namespace thimble {
namespace {

std::string Event(std::string_view name, JsonText json) {
  std::string event = "event: ";
  // A line each, as the format wants it: JSON of ours has no line breaks.
  return event.append(name).append("\ndata: ").append(std::move(json).Take()).append("\n\n");
}

void AddParts(const Plan& plan, JsonText& json) {
  json.Key("parts").Open('[');
  for (size_t first = 0; first < plan.stages.size();) {
    const Stage& stage = plan.stages[first];
    size_t end = first;
    uint64_t resident = 0;
    uint64_t weights = 0;
    while (end < plan.stages.size() && plan.stages[end].kind == stage.kind &&
           plan.stages[end].layer == stage.layer) {
      weights += plan.stages[end].weight_bytes;
      for (uint32_t t = plan.stages[end].tile_begin; t < plan.stages[end].tile_end; ++t) {
        if (plan.tiles[t].resident()) resident += plan.tiles[t].bytes;
      }
      ++end;
    }
    json.Open('[')
        .Add(static_cast<uint32_t>(stage.kind))
        .Add(stage.layer)
        .Add(static_cast<uint64_t>(first))
        .Add(static_cast<uint64_t>(end - first))
        .Add(weights)
        .Add(resident)
        .Add(stage.group)
        .Close(']');
    first = end;
  }
  json.Close(']');
}

}  // namespace

std::string PlanEvent(const Plan& plan, const DaemonStatus& status) {
  JsonText json;
  json.Open('{')
      .Field("version", status.version)
      .Field("model", status.model_name)
      .Field("architecture", status.architecture)
      .Field("context", status.context_tokens)
      .Field("ceiling", status.ceiling_bytes)
      .Field("enforcement", status.enforcement)
      .Field("granularity", status.granularity)
      .Field("groups", status.groups)
      .Field("stages", static_cast<uint64_t>(plan.stages.size()))
      .Field("rows", plan.max_rows)
      .Field("peak", plan.peak_bytes)
      .Field("resident", plan.resident_bytes)
      .Field("weights", plan.model_bytes)
      .Field("read_per_pass", plan.pass_bytes)
      .Field("max_active", status.max_active)
      .Field("max_queue", status.max_queue)
      .Field("reader", status.reader)
      .List("refusals", status.reader_refusals)
      .List("notes", status.notes)
      .List("bounds", Histogram::kBounds);
  json.Key("kinds").Open('[');
  for (size_t kind = 0; kind < kStageKinds; ++kind) {
    json.Add(StageKindName(static_cast<StageKind>(kind)));
  }
  json.Close(']');
  AddParts(plan, json);
  return Event("plan", std::move(json.Close('}')));
}

std::string StatusEvent(const DaemonStatus& status, std::string_view not_ready) {
  const SchedulerStatus& requests = status.requests;
  const MemoryOwners& o = status.owners;
  JsonText json;
  json.Open('{')
      .Field("uptime", status.uptime_seconds)
      .Field("not_ready", not_ready)
      .Field("current", status.memory.current)
      .Field("peak", status.memory.peak)
      .List("owners", std::array{o.program, o.work, o.resident, o.page_cache, o.kernel})
      .Field("failures", status.memory.failures)
      .Field("oom_kills", status.memory.oom_kills)
      .Field("active", requests.active)
      .Field("queued", requests.queued)
      .Field("requests", requests.requests_total)
      .Field("prompt_tokens", requests.prompt_tokens_total)
      .Field("tokens", requests.generated_tokens_total)
      .Field("hits", status.prefix_hit_tokens)
      .Field("running", status.pass_running)
      .Field("stage", status.stage_index)
      .Field("passes", status.passes)
      .Field("rows", status.pass_rows)
      .Field("read", status.flash_bytes_read)
      .Field("written", status.flash_bytes_written)
      .Field("stall", status.flash_stall_seconds)
      .List("first_token", requests.first_token_seconds.counts)
      .List("interval", requests.token_interval_seconds.counts)
      .List("queue_time", requests.queue_seconds.counts);
  json.Key("kind_seconds").Open('[');
  for (const StageHistogram& seconds : status.stage_seconds) json.Add(seconds.sum);
  json.Close(']');
  return Event("status", std::move(json.Close('}')));
}

}  // namespace thimble
