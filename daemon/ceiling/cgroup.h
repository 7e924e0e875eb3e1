// Memory control groups as the kernel shows them: which one this process is in, the limit in force,
// the numbers. cgroups(7), and the kernel's admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
// FindMemoryGroup is declared in ceiling.h. Called by: ceiling.cc. Memory: some strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/ceiling/ceiling.h"
#include "daemon/ceiling/cgroup_fs.h"
#include "storage/base/status.h"

namespace thimble {

// One line of mountinfo that is a cgroup hierarchy with the memory controller, or may be (v2).
struct CgroupMount {
  int version = 0;
  std::string root;         // the group in the hierarchy that is mounted
  std::string mount_point;  // where, \040 and the like decoded
};

// Lines that are no cgroup mounts, v1 mounts without `memory` and what cannot be parsed are left
// out.
std::vector<CgroupMount> ParseMountinfo(std::string_view mountinfo);

// The path after "N:...memory...:" (version 1) or "0::" (version 2) in /proc/PID/cgroup.
std::optional<std::string> ParseCgroupPath(std::string_view cgroup, int version);

// The value of a line "KEY VALUE" as in memory.stat and memory.events.
std::optional<uint64_t> ParseStat(std::string_view text, std::string_view key);

// The limit in a limit file: bytes, or UINT64_MAX for "max" and v1's "unlimited"; nullopt: not a
// number.
std::optional<uint64_t> ParseLimit(std::string_view text);

// The numbers of the group in `directory`. NOT_FOUND where it has none (the root group of v2).
Result<CeilingUsage> ReadGroupUsage(const CgroupFs& fs, int version, const std::string& directory);

// The bytes of a line "KEY:    1234 kB" of /proc/PID/status.
std::optional<uint64_t> ParseProcessStatus(std::string_view status, std::string_view key);

// /proc/self/status: VmRSS, VmHWM, RssAnon, RssFile; no failures.
Result<CeilingUsage> ReadProcessUsage();

}  // namespace thimble
