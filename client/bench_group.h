// A control group that `thimble bench` makes for one program: memory limited, and reading from the
// model's device slowed down to a rate where that is asked for. v1 has a directory in each of the
// two hierarchies, v2 one. Called by: bench*.cc. Memory: some strings.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/bench_stats.h"
#include "daemon/ceiling/ceiling.h"
#include "daemon/ceiling/cgroup_fs.h"
#include "storage/base/status.h"

namespace thimble {

struct BenchGroupOptions {
  uint64_t limit_bytes = kNoCeiling;
  uint64_t flash_bytes_per_second = 0;  // 0: as fast as it is
  std::string device;                   // "254:0", see DeviceOf
};

class BenchGroup {
 public:
  // Directories "thimble-bench-PID-N" in the mounted hierarchies. FAILED_PRECONDITION with what was
  // refused; nothing is left behind then. `fs` must outlive the group.
  static Result<std::unique_ptr<BenchGroup>> Make(CgroupFs& fs, const BenchGroupOptions& options,
                                                  const CgroupPaths& paths = {});
  // Its processes must have ended. Tries for two seconds: the kernel may need a moment.
  ~BenchGroup();
  BenchGroup(const BenchGroup&) = delete;
  BenchGroup& operator=(const BenchGroup&) = delete;

  // The files that a process writes "0" to in order to be in the group.
  [[nodiscard]] const std::vector<std::string>& procs_files() const { return procs_files_; }
  [[nodiscard]] Result<CeilingUsage> Usage() const;

 private:
  BenchGroup(CgroupFs& fs, int version) : fs_(fs), version_(version) {}
  Status MakeDirectory(const std::string& mount_point, const std::string& name);
  Status Limit(const BenchGroupOptions& options, const std::string& mount_point);
  Status Throttle(const BenchGroupOptions& options, const std::string& mount_point,
                  const std::string& name, const CgroupPaths& paths);
  Status EnableController(const std::string& mount_point, const std::string& controller);

  CgroupFs& fs_;
  const int version_;
  std::vector<std::string> directories_;  // the memory group first
  std::vector<std::string> procs_files_;
  std::vector<std::string> enabled_;  // v2: "PATH +CONTROLLER" written by us, to be undone
};

// "MAJOR:MINOR" of the disk (not the partition) that `path` lies on, as the kernel's I/O controller
// wants it. NOT_FOUND where there is no block device behind it (tmpfs, overlay, network).
Result<std::string> DeviceOf(const std::string& path);

}  // namespace thimble
