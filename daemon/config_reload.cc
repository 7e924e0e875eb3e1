#include "daemon/config_reload.h"

#include "daemon/log.h"

namespace thimble {

void ApplyReread(const Result<Invocation>& fresh, Config& in_force) {
  if (!fresh.ok()) {
    LogLine(LogLevel::kError, "reload")
        .Add("error", fresh.status().message())
        .Add("effect", "none");
    return;
  }
  size_t changed = 0;
  for (const OptionSpec& spec : OptionTable()) {
    const std::string before = spec.show(in_force);
    const std::string after = spec.show(fresh->config);
    if (before == after) continue;
    ++changed;
    if (spec.rereadable) (void)spec.parse(after, in_force);
    LogLine(spec.rereadable ? LogLevel::kNotice : LogLevel::kWarning, "reload")
        .Add("option", spec.name)
        .Add("before", before)
        .Add("after", after)
        .Add("effect", spec.rereadable ? "now" : "after a restart");
  }
  SetLogLevel(in_force.log_level);
  LogLine(LogLevel::kNotice, "reload").Add("changed", changed);
}

}  // namespace thimble
