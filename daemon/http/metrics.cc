#include "daemon/http/metrics.h"

#include <array>
#include <charconv>

#include "daemon/rpc/utf8.h"

namespace thimble {
namespace {

template <typename T>
std::string Number(T value) {
  std::array<char, 32> digits;  // a double's shortest form has 24 characters at most
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() ? std::string(digits.data(), end) : "0";
}

std::string Escaped(std::string_view value) {
  std::string escaped;
  for (const char c : ToValidUtf8(value)) {
    if (c == '\n') {
      escaped += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

void AddIdentity(const DaemonStatus& status, MetricsText& text) {
  text.Metric("thimble_build_info", "gauge", "The version that runs; always 1.")
      .Sample(uint64_t{1}, {{"version", status.version}});
  text.Metric("thimble_model_info", "gauge", "The model that is served; always 1.")
      .Sample(uint64_t{1}, {{"name", status.model_name}, {"architecture", status.architecture}});
  text.Metric("thimble_reader_info", "gauge", "How weights are read from flash; always 1.")
      .Sample(uint64_t{1}, {{"backend", status.reader}});
  text.Metric("thimble_flash_measured_bytes_per_second", "gauge",
              "Speed of reading the model, measured at start.")
      .Sample(status.flash_bytes_per_second);
  text.Metric("thimble_enforcement_info", "gauge", "What enforces the ceiling; always 1.")
      .Sample(uint64_t{1}, {{"by", status.enforcement}});
  text.Metric("thimble_uptime_seconds", "gauge", "Time since the daemon started.")
      .Sample(status.uptime_seconds);
  text.Metric("thimble_model_bytes", "gauge", "Size of the model's weights.")
      .Sample(status.model_bytes);
  text.Metric("thimble_context_tokens", "gauge", "Tokens of one request, prompt and generated.")
      .Sample(uint64_t{status.context_tokens});
}

void AddMemory(const DaemonStatus& status, MetricsText& text) {
  const CeilingUsage& memory = status.memory;
  if (status.ceiling_bytes != 0) {
    const uint64_t free =
        status.ceiling_bytes > memory.current ? status.ceiling_bytes - memory.current : 0;
    text.Metric("thimble_ceiling_bytes", "gauge", "The most RAM for everything, page cache too.")
        .Sample(status.ceiling_bytes);
    text.Metric("thimble_headroom_bytes", "gauge", "What is left under the ceiling.").Sample(free);
  }
  text.Metric("thimble_memory_current_bytes", "gauge", "RAM of the control group, page cache too.")
      .Sample(memory.current);
  if (memory.peak != 0) {  // kernels before 5.19 do not tell with control groups of version 2
    text.Metric("thimble_memory_peak_bytes", "gauge", "The most RAM the control group has had.")
        .Sample(memory.peak);
  }
  text.Metric("thimble_memory_page_cache_bytes", "gauge", "Page cache of the control group.")
      .Sample(memory.page_cache);
  text.Metric("thimble_memory_anonymous_bytes", "gauge", "Anonymous RAM of the control group.")
      .Sample(memory.anonymous);
  const MemoryOwners& owners = status.owners;
  text.Metric("thimble_memory_owned_bytes", "gauge", "RAM of the control group, by who holds it.")
      .Sample(owners.program, {{"owner", "program"}})
      .Sample(owners.work, {{"owner", "work"}})
      .Sample(owners.resident, {{"owner", "resident"}})
      .Sample(owners.page_cache, {{"owner", "page_cache"}})
      .Sample(owners.kernel, {{"owner", "kernel"}});
  text.Metric("thimble_memory_failures_total", "counter", "Charges that ran into the limit.")
      .Sample(memory.failures);
  text.Metric("thimble_oom_kills_total", "counter", "Processes of the group that were killed.")
      .Sample(memory.oom_kills);
  text.Metric("thimble_plan_peak_bytes", "gauge", "RAM of the arena, as planned.")
      .Sample(status.plan_peak_bytes);
  text.Metric("thimble_arena_peak_bytes", "gauge", "RAM of the arena, as measured.")
      .Sample(status.arena_peak_bytes);
  text.Metric("thimble_resident_bytes", "gauge", "Weights kept in RAM.")
      .Sample(status.resident_bytes);
  text.Metric("thimble_resident_yielded_bytes", "gauge",
              "Of these, what gives way since the group is nearly full.")
      .Sample(status.yielded_bytes);
}

void AddWork(const DaemonStatus& status, MetricsText& text) {
  const SchedulerStatus& requests = status.requests;
  text.Metric("thimble_requests_active", "gauge", "Requests being computed.")
      .Sample(uint64_t{requests.active});
  text.Metric("thimble_requests_queued", "gauge", "Requests that wait.")
      .Sample(uint64_t{requests.queued});
  text.Metric("thimble_requests_total", "counter", "Requests accepted.")
      .Sample(requests.requests_total);
  text.Metric("thimble_prompt_tokens_total", "counter", "Prompt tokens computed, not from cache.")
      .Sample(requests.prompt_tokens_total);
  text.Metric("thimble_generated_tokens_total", "counter", "Tokens generated.")
      .Sample(requests.generated_tokens_total);
  text.Metric("thimble_draft_tokens_total", "counter",
              "Guesses at what a text goes on with that passes have verified.")
      .Sample(requests.draft_tokens_total);
  text.Metric("thimble_draft_tokens_accepted_total", "counter",
              "Of these, right ones, generated tokens without a pass of their own.")
      .Sample(requests.draft_tokens_accepted_total);
  text.Metric("thimble_prefix_hit_tokens_total", "counter", "Prompt tokens found in the cache.")
      .Sample(status.prefix_hit_tokens);
  text.Metric("thimble_request_queue_time_seconds", "histogram", "From acceptance to the start.")
      .Sample(requests.queue_seconds);
  text.Metric("thimble_time_to_first_token_seconds", "histogram",
              "From acceptance to the first token.")
      .Sample(requests.first_token_seconds);
  text.Metric("thimble_inter_token_latency_seconds", "histogram",
              "Between two tokens of a request.")
      .Sample(requests.token_interval_seconds);
}

void AddStages(const DaemonStatus& status, MetricsText& text) {
  text.Metric("thimble_passes_total", "counter", "Walks through all stages.").Sample(status.passes);
  text.Metric("thimble_pass_rows_total", "counter", "Token positions computed by the passes.")
      .Sample(status.pass_rows);
  text.Metric("thimble_stage_seconds", "histogram",
              "Time of a stage, by kind, waiting for flash aside.");
  for (size_t kind = 0; kind < kStageKinds; ++kind) {
    text.Sample(status.stage_seconds[kind],
                {{"kind", StageKindName(static_cast<StageKind>(kind))}});
  }
  text.Metric("thimble_flash_read_bytes_total", "counter",
              "Weights, keys and values read from flash.")
      .Sample(status.flash_bytes_read);
  text.Metric("thimble_flash_stall_seconds_total", "counter",
              "Time spent waiting for what is read from flash.")
      .Sample(status.flash_stall_seconds);
  if (status.flash_bytes_written != 0) {
    text.Metric("thimble_flash_written_bytes_total", "counter",
                "Bytes that the daemon has had written to disk: journal, keys and values, outputs.")
        .Sample(status.flash_bytes_written);
  }
  text.Metric("thimble_stage_written_bytes_total", "counter", "Stage outputs written to disk.")
      .Sample(status.stage_bytes_written);
}

void AddLlamaCpp(const DaemonStatus& status, MetricsText& text) {
  const SchedulerStatus& requests = status.requests;
  text.Metric("llamacpp:prompt_tokens_total", "counter", "As thimble_prompt_tokens_total.")
      .Sample(requests.prompt_tokens_total);
  text.Metric("llamacpp:tokens_predicted_total", "counter", "As thimble_generated_tokens_total.")
      .Sample(requests.generated_tokens_total);
  text.Metric("llamacpp:requests_processing", "gauge", "As thimble_requests_active.")
      .Sample(uint64_t{requests.active});
  text.Metric("llamacpp:requests_deferred", "gauge", "As thimble_requests_queued.")
      .Sample(uint64_t{requests.queued});
}

void AddVllm(const DaemonStatus& status, MetricsText& text) {
  const SchedulerStatus& requests = status.requests;
  text.Metric("vllm:num_requests_running", "gauge", "As thimble_requests_active.")
      .Sample(uint64_t{requests.active});
  text.Metric("vllm:num_requests_waiting", "gauge", "As thimble_requests_queued.")
      .Sample(uint64_t{requests.queued});
  text.Metric("vllm:prompt_tokens_total", "counter", "As thimble_prompt_tokens_total.")
      .Sample(requests.prompt_tokens_total);
  text.Metric("vllm:generation_tokens_total", "counter", "As thimble_generated_tokens_total.")
      .Sample(requests.generated_tokens_total);
  text.Metric("vllm:time_to_first_token_seconds", "histogram",
              "As thimble_time_to_first_token_seconds.")
      .Sample(requests.first_token_seconds);
  text.Metric("vllm:inter_token_latency_seconds", "histogram",
              "As thimble_inter_token_latency_seconds.")
      .Sample(requests.token_interval_seconds);
  text.Metric("vllm:request_queue_time_seconds", "histogram",
              "As thimble_request_queue_time_seconds.")
      .Sample(requests.queue_seconds);
}

}  // namespace

MetricsText& MetricsText::Metric(std::string_view name, std::string_view type,
                                 std::string_view help) {
  name_ = name;
  for (const auto& [keyword, value] : {std::pair("# HELP ", help), std::pair("# TYPE ", type)}) {
    text_.append(keyword).append(name).append(" ").append(value).append("\n");
  }
  return *this;
}

void MetricsText::Line(std::string_view suffix, Labels labels, std::string_view bound,
                       std::string_view value) {
  text_.append(name_).append(suffix);
  char separator = '{';
  const auto add = [&](std::string_view name, std::string_view label) {
    text_ += separator;
    text_.append(name).append("=\"").append(Escaped(label)).append("\"");
    separator = ',';
  };
  for (const auto& [name, label] : labels) add(name, label);
  if (!bound.empty()) add("le", bound);
  if (separator == ',') text_ += '}';
  text_.append(" ").append(value).append("\n");
}

MetricsText& MetricsText::Sample(double value, Labels labels) {
  Line("", labels, "", Number(value));
  return *this;
}

MetricsText& MetricsText::Sample(uint64_t value, Labels labels) {
  Line("", labels, "", Number(value));
  return *this;
}

MetricsText& MetricsText::Sample(std::span<const double> bounds, std::span<const uint64_t> counts,
                                 double sum, Labels labels) {
  uint64_t total = 0;
  for (size_t i = 0; i < bounds.size(); ++i) {
    total += counts[i];
    Line("_bucket", labels, Number(bounds[i]), Number(total));
  }
  total += counts.back();
  Line("_bucket", labels, "+Inf", Number(total));
  Line("_sum", labels, "", Number(sum));
  Line("_count", labels, "", Number(total));
  return *this;
}

std::string MetricsPage(const DaemonStatus& status, CompatibleNames names) {
  MetricsText text;
  AddIdentity(status, text);
  AddMemory(status, text);
  AddWork(status, text);
  AddStages(status, text);
  if (names.llamacpp) AddLlamaCpp(status, text);
  if (names.vllm) AddVllm(status, text);
  return std::move(text).Take();
}

}  // namespace thimble
