// The ceiling: which control group limits this process, and what is left of the limit for buffers.
//
// Detection follows /proc/self/mountinfo and /proc/self/cgroup (cgroups(7)); v1's memory controller is
// preferred where there is one, v2 only with `memory` in cgroup.controllers. The strictest limit on the
// way up the hierarchy is the one in force.
// Called by: main, `thimble plan`, the status. Memory: some strings.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

enum class Enforcement : uint8_t { kCgroup, kProcess, kNone };
std::string_view EnforcementName(Enforcement enforcement);  // "cgroup", "process", "none"
Result<Enforcement> ParseEnforcement(std::string_view text);

// The file system as the detection sees it; tests root it in a directory of their own.
struct CgroupPaths {
  std::string mountinfo = "/proc/self/mountinfo";
  std::string cgroup = "/proc/self/cgroup";
  std::string root;  // put before every path taken from mountinfo
};

// A memory control group: its version, directory, and the limit in force on it or above it.
struct MemoryGroup {
  int version = 0;           // 1 or 2
  std::string directory;     // of the process's own group
  uint64_t limit_bytes = 0;  // the strictest on the way up; UINT64_MAX: none
  std::string limit_file;    // where that limit stands
};

// NOT_FOUND, with the reason ("add cgroup_enable=memory to cmdline.txt" on a Raspberry Pi), where there is
// no memory controller.
Result<MemoryGroup> FindMemoryGroup(const CgroupPaths& paths = {});

struct CeilingUsage {           // bytes, of the group
  uint64_t current = 0;
  uint64_t peak = 0;            // memory.max_usage_in_bytes, memory.peak (0 where the kernel has none)
  uint64_t page_cache = 0;      // memory.stat: cache / file
  uint64_t anonymous = 0;       // memory.stat: rss / anon
  uint64_t failures = 0;        // memory.failcnt, memory.events: max
  uint64_t oom_kills = 0;
};

class Ceiling {
 public:
  // Puts `ram_ceiling_bytes` (0: adopt what is in force) into effect for this process:
  //  kCgroup: in a group of its own where that can be made (v1: a child of the current group; v2: as
  //    DESIGN orders it: child, move, subtree_control, memory.max), else adopts the limit in force, which
  //    must then be no larger than asked for; FAILED_PRECONDITION where nothing is in force and nothing can be
  //    set, naming --enforcement=process.
  //  kProcess: RLIMIT_DATA and the daemon's own budget; reported as weaker.
  //  kNone: nothing is enforced; the ceiling (or none) only sizes the budget.
  // `notes` of the result says what was done and why, a line each.
  static Result<std::unique_ptr<Ceiling>> Establish(uint64_t ram_ceiling_bytes,
                                                    Enforcement enforcement,
                                                    const CgroupPaths& paths = {});
  // Removes the group that Establish made (it must be left first: the process moves back).
  ~Ceiling();
  Ceiling(const Ceiling&) = delete;
  Ceiling& operator=(const Ceiling&) = delete;

  [[nodiscard]] uint64_t ceiling_bytes() const { return ceiling_bytes_; }  // UINT64_MAX: none
  [[nodiscard]] Enforcement enforcement() const { return enforcement_; }
  [[nodiscard]] bool own_group() const { return own_group_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }  // "" without a group
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  // What the group (or, without one, the process: VmHWM, VmRSS) uses now.
  [[nodiscard]] Result<CeilingUsage> Usage() const;

 private:
  Ceiling() = default;
  uint64_t ceiling_bytes_ = UINT64_MAX;
  Enforcement enforcement_ = Enforcement::kNone;
  bool own_group_ = false;
  int version_ = 0;
  std::string directory_;
  std::string parent_directory_;
  std::vector<std::string> notes_;
};

}  // namespace thimble
