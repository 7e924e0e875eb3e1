#include "daemon/ceiling/ceiling.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

#include "daemon/ceiling/cgroup.h"
#include "daemon/ceiling/cgroup_fs.h"
#include "daemon/ceiling/own_group.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// Sets RLIMIT_DATA (private writable mappings, stacks of threads at their full size included),
// never raising it. Returns the limit; FAILED_PRECONDITION where the process is over it already,
// since its next allocation would fail.
Result<uint64_t> LimitData(uint64_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_DATA, &limit) != 0) return ErrnoError(errno, "getrlimit RLIMIT_DATA");
  const rlim_t wanted = static_cast<rlim_t>(std::min<uint64_t>(bytes, RLIM_INFINITY));
  limit.rlim_max = std::min(limit.rlim_max, wanted);
  limit.rlim_cur = std::min(limit.rlim_cur, limit.rlim_max);
  THIMBLE_ASSIGN_OR_RETURN(const std::string status, KernelCgroupFs().Read("/proc/self/status"));
  if (const auto data = ParseProcessStatus(status, "VmData"); data.value_or(0) > limit.rlim_cur) {
    return FailedPreconditionError("--enforcement=process: " + FormatBytes(*data) +
                                   " of data are mapped already (VmData), over the ceiling of " +
                                   FormatBytes(limit.rlim_cur));
  }
  if (::setrlimit(RLIMIT_DATA, &limit) != 0) {
    return ErrnoError(errno, "setrlimit RLIMIT_DATA " + std::to_string(bytes));
  }
  return static_cast<uint64_t>(limit.rlim_cur);
}

Status NothingToGoBy(const std::string& why) {
  return FailedPreconditionError(
      why +
      ", and no --ram-ceiling was given: give one, or --enforcement=none "
      "to run without a ceiling");
}

}  // namespace

std::string_view EnforcementName(Enforcement enforcement) {
  switch (enforcement) {
    case Enforcement::kCgroup:
      return "cgroup";
    case Enforcement::kProcess:
      return "process";
    case Enforcement::kNone:
      return "none";
  }
  return "unknown";
}

Result<Enforcement> ParseEnforcement(std::string_view text) {
  for (const Enforcement enforcement :
       {Enforcement::kCgroup, Enforcement::kProcess, Enforcement::kNone}) {
    if (text == EnforcementName(enforcement)) return enforcement;
  }
  return InvalidArgumentError("enforcement \"" + std::string(text) +
                              "\": expected cgroup, process or none");
}

Ceiling::Ceiling() = default;
Ceiling::~Ceiling() = default;

Result<std::unique_ptr<Ceiling>> Ceiling::Establish(uint64_t ram_ceiling_bytes,
                                                    Enforcement enforcement,
                                                    const CgroupPaths& paths) {
  CgroupFs& fs = paths.fs != nullptr ? *paths.fs : KernelCgroupFs();
  const uint64_t asked = ram_ceiling_bytes == 0 ? UINT64_MAX : ram_ceiling_bytes;
  std::unique_ptr<Ceiling> ceiling(new Ceiling);
  ceiling->enforcement_ = enforcement;
  ceiling->fs_ = &fs;
  std::vector<std::string>& notes = ceiling->notes_;

  const Result<MemoryGroup> group = FindMemoryGroup(paths);
  const uint64_t in_force = group.ok() ? group->limit_bytes : UINT64_MAX;
  ceiling->ceiling_bytes_ = std::min(asked, in_force);
  if (in_force <= asked && in_force != UINT64_MAX) {
    ceiling->version_ = group->version;
    ceiling->limit_file_ = group->limit_file;
    std::string note =
        "adopted the limit in force, " + FormatBytes(in_force) + " in " + group->limit_file;
    if (ram_ceiling_bytes > in_force) {
      note += ", which is stricter than --ram-ceiling " + FormatBytes(ram_ceiling_bytes);
    }
    if (!group->limit_file.starts_with(group->directory + "/")) {
      note += "; other processes of that group share it";
    }
    notes.push_back(std::move(note));
  }

  switch (enforcement) {
    case Enforcement::kNone:
      notes.push_back(ceiling->ceiling_bytes_ == UINT64_MAX
                          ? "no ceiling: nothing is enforced"
                          : "the ceiling of " + FormatBytes(ceiling->ceiling_bytes_) +
                                " sizes the budget; thimble enforces nothing itself");
      return ceiling;

    case Enforcement::kProcess: {
      if (ceiling->ceiling_bytes_ == UINT64_MAX) {
        return NothingToGoBy("--enforcement=process: no memory limit is in force");
      }
      THIMBLE_ASSIGN_OR_RETURN(const uint64_t data, LimitData(ceiling->ceiling_bytes_));
      notes.push_back("RLIMIT_DATA " + FormatBytes(data) +
                      " and the budget keep to the ceiling: weaker than a control group, since "
                      "page cache and the kernel's memory are not counted");
      return ceiling;
    }

    case Enforcement::kCgroup:
      break;
  }

  if (!group.ok()) {
    return FailedPreconditionError(
        group.status().message() +
        ". --enforcement=process goes on with resource limits, which are weaker");
  }
  ceiling->version_ = group->version;
  ceiling->directory_ = group->directory;
  if (in_force <= asked) {
    if (in_force == UINT64_MAX) {
      return NothingToGoBy("no memory limit is in force for " + group->directory);
    }
    return ceiling;
  }

  Result<std::unique_ptr<OwnGroup>> own = OwnGroup::Make(fs, *group, asked);
  if (!own.ok()) {
    const bool has_limit = in_force != UINT64_MAX;
    return FailedPreconditionError(
        "no control group can be made for --ram-ceiling " + FormatBytes(asked) + " (" +
        own.status().message() + "), and " +
        (has_limit ? "the limit in force is " + FormatBytes(in_force) + " (" + group->limit_file +
                         "): leave out --ram-ceiling to take that one, lower it"
                   : std::string("no limit is in force: set one for the container or unit")) +
        ", delegate memory control to the daemon (systemd: Delegate=memory), or give "
        "--enforcement=process for resource limits, which are weaker");
  }
  ceiling->own_group_ = std::move(own).value();
  ceiling->directory_ = ceiling->own_group_->directory();
  ceiling->limit_file_ =
      ceiling->directory_ + (group->version == 1 ? "/memory.limit_in_bytes" : "/memory.max");
  notes.push_back("limited to " + FormatBytes(asked) + " in a control group of its own, " +
                  ceiling->directory_ + " (v" + std::to_string(group->version) + ")");
  if (const unsigned moved = ceiling->own_group_->moved_others(); moved != 0) {
    notes.push_back("moved " + std::to_string(moved) + " other processes of " + group->directory +
                    " to " + ceiling->directory_ + "-others, without a limit");
  }
  if (const Result<CeilingUsage> before = ReadProcessUsage(); before.ok()) {
    notes.push_back(FormatBytes(before->current) +
                    " touched before are charged to the group that was left, " + group->directory);
  }
  return ceiling;
}

Result<CeilingUsage> Ceiling::Usage() const {
  if (!directory_.empty()) {
    Result<CeilingUsage> usage = ReadGroupUsage(*fs_, version_, directory_);
    if (usage.ok() || usage.status().code() != StatusCode::kNotFound) return usage;
  }
  return ReadProcessUsage();
}

std::optional<PressureGauge> Ceiling::Pressure() const {
  if (limit_file_.empty()) return std::nullopt;
  return PressureGauge(*fs_, version_, limit_file_, ceiling_bytes_);
}

}  // namespace thimble
