// The ceiling: which control group limits this process, and what is left of the limit for buffers.
//
// Detection follows /proc/self/mountinfo and /proc/self/cgroup (cgroups(7)); v1's memory controller
// is preferred where there is one, v2 only with `memory` in cgroup.controllers. The strictest limit
// on the way up the hierarchy is the one in force. Called by: main, `thimble plan`, the status.
// Memory: some strings.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/ceiling/pressure.h"
#include "storage/base/status.h"

namespace thimble {

class CgroupFs;
class OwnGroup;

enum class Enforcement : uint8_t { kCgroup, kProcess, kNone };
std::string_view EnforcementName(Enforcement enforcement);  // "cgroup", "process", "none"
Result<Enforcement> ParseEnforcement(std::string_view text);

// The file system as the detection sees it; tests root it in a directory of their own.
struct CgroupPaths {
  std::string mountinfo = "/proc/self/mountinfo";
  std::string cgroup = "/proc/self/cgroup";
  std::string cgroups = "/proc/cgroups";
  std::string root;        // put before every path taken from mountinfo
  CgroupFs* fs = nullptr;  // null: the kernel's; must outlive the Ceiling
};

// A memory control group: its version, directory, and the limit in force on it or above it.
struct MemoryGroup {
  int version = 0;        // 1 or 2
  std::string directory;  // whose counters hold for the process: its own group, or (v2) the nearest
                          // ancestor that has the memory controller
  bool is_own = true;     // false: such an ancestor
  std::string mount_point;  // of the hierarchy; `directory` is it or beneath it
  // The strictest on the way up (v2: of memory.max and memory.high, since a group over the latter
  // is slowed down to a crawl); UINT64_MAX: none.
  uint64_t limit_bytes = 0;
  std::string limit_file;  // where that limit stands
};

// NOT_FOUND, with the reason ("add cgroup_enable=memory to cmdline.txt" on a Raspberry Pi), where
// there is no memory controller.
Result<MemoryGroup> FindMemoryGroup(const CgroupPaths& paths = {});

struct CeilingUsage {  // bytes, of the group
  uint64_t current = 0;
  uint64_t peak = 0;        // memory.max_usage_in_bytes, memory.peak (0 before Linux 5.19)
  uint64_t page_cache = 0;  // memory.stat: cache / file
  uint64_t anonymous = 0;   // memory.stat: rss / anon
  uint64_t locked = 0;      // of the page cache, what is locked: memory.stat: unevictable
  uint64_t failures = 0;    // charges that ran into the limit: memory.failcnt and
                            // memory.memsw.failcnt, memory.events: max
  uint64_t oom_kills = 0;
};

class Ceiling {
 public:
  // Puts `ram_ceiling_bytes` (0: whatever is in force) into effect for this process. To be called
  // first thing: what a process has touched before it moves stays charged to the group it leaves.
  //
  //  kCgroup: a kernel limit that is no larger than asked for, or an error.
  //   - nothing asked for: the limit in force is adopted; none in force is FAILED_PRECONDITION;
  //   - the limit in force is as asked or stricter: it is adopted, and is the ceiling;
  //   - it is larger, or there is none: a group of its own is made beneath the current one. Where
  //   that is
  //     refused (containers, units without delegation): FAILED_PRECONDITION. An operator who asked
  //     for 32 MiB in a container of 64 MiB is not served by a daemon that may take 64, nor by one
  //     that merely means to keep to 32; the message has both numbers and the ways out.
  //  kProcess: RLIMIT_DATA and the daemon's own budget; reported as weaker. Needs a number: asked
  //    for or in force.
  //  kNone: nothing is enforced; the ceiling (or none) only sizes the budget.
  // In every mode a limit in force that is stricter than asked for is the ceiling, since the kernel
  // will hold the process to it. notes() says what was done and why, a line each.
  static Result<std::unique_ptr<Ceiling>> Establish(uint64_t ram_ceiling_bytes,
                                                    Enforcement enforcement,
                                                    const CgroupPaths& paths = {});
  // Removes the group that Establish made (it must be left first: the process moves back).
  ~Ceiling();
  Ceiling(const Ceiling&) = delete;
  Ceiling& operator=(const Ceiling&) = delete;

  [[nodiscard]] uint64_t ceiling_bytes() const { return ceiling_bytes_; }  // UINT64_MAX: none
  [[nodiscard]] Enforcement enforcement() const { return enforcement_; }
  [[nodiscard]] bool own_group() const { return own_group_ != nullptr; }
  [[nodiscard]] const std::string& directory() const { return directory_; }  // "" without a group
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  // What the group (or, without one and in v2's root group, the process: VmHWM, VmRSS) uses now.
  [[nodiscard]] Result<CeilingUsage> Usage() const;
  // Of the group on which the limit in force stands (v1 may tell the limit of an ancestor in the
  // process's own memory.stat alone: then of that group); nullopt where the kernel enforces none.
  [[nodiscard]] std::optional<PressureGauge> Pressure() const;

 private:
  Ceiling();
  uint64_t ceiling_bytes_ = UINT64_MAX;
  Enforcement enforcement_ = Enforcement::kNone;
  std::unique_ptr<OwnGroup> own_group_;
  const CgroupFs* fs_ = nullptr;
  int version_ = 0;
  std::string directory_;
  std::string limit_file_;  // "": no limit is in force
  std::vector<std::string> notes_;
};

}  // namespace thimble
