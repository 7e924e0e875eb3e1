// `thimble status`: what the daemon is and does now. Memory: one message.
#include <cstdio>

#include "client/client.h"
#include "client/common.h"
#include "client/json_line.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

template <typename Strings>
std::string StringArray(const Strings& strings) {
  std::string json = "[";
  for (const std::string& s : strings) json += (json.size() > 1 ? "," : "") + JsonLine::Quote(s);
  return json + "]";
}

// The names are those of the API's fields.
std::string ToJson(const v1::GetStatusResponse& s) {
  return JsonLine()
      .Add("version", s.version())
      .Add("model_name", s.model_name())
      .Add("architecture", s.architecture())
      .Add("model_bytes", s.model_bytes())
      .Add("context_tokens", s.context_tokens())
      .Add("uptime_seconds", s.uptime_seconds())
      .Add("ceiling_bytes", s.ceiling_bytes())
      .Add("enforcement", s.enforcement())
      .Add("control_group", s.control_group())
      .Add("memory_current_bytes", s.memory_current_bytes())
      .Add("memory_peak_bytes", s.memory_peak_bytes())
      .Add("memory_page_cache_bytes", s.memory_page_cache_bytes())
      .Add("memory_failures", s.memory_failures())
      .Add("oom_kills", s.oom_kills())
      .Add("plan_peak_bytes", s.plan_peak_bytes())
      .Add("arena_peak_bytes", s.arena_peak_bytes())
      .Add("resident_bytes", s.resident_bytes())
      .Add("granularity", s.granularity())
      .Add("groups", s.groups())
      .Add("stage", s.stage())
      .Add("active_requests", s.active_requests())
      .Add("queued_requests", s.queued_requests())
      .Add("requests_total", s.requests_total())
      .Add("prompt_tokens_total", s.prompt_tokens_total())
      .Add("generated_tokens_total", s.generated_tokens_total())
      .Add("draft_tokens_total", s.draft_tokens_total())
      .Add("draft_tokens_accepted_total", s.draft_tokens_accepted_total())
      .Add("prefix_hit_tokens_total", s.prefix_hit_tokens_total())
      .Add("reader", s.reader())
      .AddRaw("reader_refusals", StringArray(s.reader_refusals()))
      .Add("flash_bytes_read", s.flash_bytes_read())
      .Add("flash_stall_seconds", s.flash_stall_seconds())
      .Add("stage_bytes_written", s.stage_bytes_written())
      .AddRaw("notes", StringArray(s.notes()))
      .str();
}

void Line(const char* name, const std::string& value) {
  (void)std::printf("%-22s %s\n", name, value.c_str());
}

// "67108864 bytes (64.0 MiB)".
std::string Size(uint64_t bytes) {
  return bytes < kKiB ? FormatBytes(bytes)
                      : std::to_string(bytes) + " bytes (" + FormatBytes(bytes) + ")";
}

std::string Seconds(double seconds) {
  char text[32];
  (void)std::snprintf(static_cast<char*>(text), sizeof text, "%.3f s", seconds);
  return static_cast<char*>(text);
}

void PrintText(const v1::GetStatusResponse& s) {
  Line("version", s.version());
  Line("model", s.model_name() + " (" + s.architecture() + ")");
  Line("weights", Size(s.model_bytes()));
  Line("context", std::to_string(s.context_tokens()) + " tokens");
  Line("uptime", Seconds(s.uptime_seconds()));
  Line("ceiling", s.ceiling_bytes() == 0 ? "none" : Size(s.ceiling_bytes()));
  Line("enforcement", s.enforcement());
  if (!s.control_group().empty()) Line("control group", s.control_group());
  Line("memory now", Size(s.memory_current_bytes()));
  Line("memory peak", Size(s.memory_peak_bytes()));
  Line("page cache", Size(s.memory_page_cache_bytes()));
  Line("limit hits", std::to_string(s.memory_failures()));
  Line("OOM kills", std::to_string(s.oom_kills()));
  Line("plan's peak", Size(s.plan_peak_bytes()));
  Line("arena's peak", Size(s.arena_peak_bytes()));
  Line("resident weights", Size(s.resident_bytes()));
  Line("granularity", s.granularity() + ", " + std::to_string(s.groups()) + " groups");
  Line("stage", s.stage());
  Line("active requests", std::to_string(s.active_requests()));
  Line("queued requests", std::to_string(s.queued_requests()));
  Line("requests", std::to_string(s.requests_total()));
  Line("prompt tokens", std::to_string(s.prompt_tokens_total()));
  Line("generated tokens", std::to_string(s.generated_tokens_total()));
  Line("guessed tokens", std::to_string(s.draft_tokens_total()) + ", " +
                             std::to_string(s.draft_tokens_accepted_total()) + " right");
  Line("prefix hit tokens", std::to_string(s.prefix_hit_tokens_total()));
  Line("reader", s.reader());
  for (const std::string& refusal : s.reader_refusals()) Line("reader refused", refusal);
  Line("read from flash", Size(s.flash_bytes_read()));
  Line("waited for flash", Seconds(s.flash_stall_seconds()));
  Line("stage outputs written", Size(s.stage_bytes_written()));
  for (const std::string& note : s.notes()) Line("note", note);
}

}  // namespace

int RunStatusCommand(const std::string& connect, const StatusCommand& command) {
  int exit_code = kExitOk;
  std::optional<Client> client = ConnectOrExplain(connect, command.json, &exit_code);
  if (!client) return exit_code;
  const Result<v1::GetStatusResponse> status = client->GetStatus();
  if (!status.ok()) {
    PrintError(status.status(), command.json);
    return kExitFailed;
  }
  if (command.json) {
    (void)std::printf("%s\n", ToJson(*status).c_str());
  } else {
    PrintText(*status);
  }
  return kExitOk;
}

}  // namespace thimble
