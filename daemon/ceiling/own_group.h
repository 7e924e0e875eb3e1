// A memory control group of the daemon's own, beneath the one it was started in: made, limited,
// entered; left and removed at the end. Called by: Ceiling. Memory: some strings.
//
// v1: mkdir, limit, move. v2 (no group but the root may have both processes and controllers for its
// children): mkdir, move, every other process of the group to a second child without a limit,
// +memory, limit.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "daemon/ceiling/ceiling.h"
#include "daemon/ceiling/cgroup_fs.h"
#include "storage/base/status.h"

namespace thimble {

class OwnGroup {
 public:
  // FAILED_PRECONDITION with the operation that was refused (read-only, no permission, no
  // delegation); everything is then as before. Groups "thimble-PID" of dead processes beside the
  // new one are removed. `fs` must outlive the group.
  static Result<std::unique_ptr<OwnGroup>> Make(CgroupFs& fs, const MemoryGroup& parent,
                                                uint64_t limit_bytes);
  // Moves the processes back and removes the group. Does nothing in a forked child.
  ~OwnGroup();
  OwnGroup(const OwnGroup&) = delete;
  OwnGroup& operator=(const OwnGroup&) = delete;

  [[nodiscard]] const std::string& directory() const { return directory_; }
  // Other processes that had to be moved out of the way (v2).
  [[nodiscard]] unsigned moved_others() const { return moved_others_; }

 private:
  OwnGroup(CgroupFs& fs, const MemoryGroup& parent);
  // What a killed daemon has set up is put back by this one's end: the others and the controller.
  void TakeOver(const std::string& others);
  Status MakeV1(uint64_t limit_bytes);
  Status MakeV2(uint64_t limit_bytes);
  Status EnableMemory();
  Status Write(const std::string& path, const std::string& text);
  // Every process of group `from`; those that end meanwhile don't matter.
  Status MoveAll(const std::string& from, const std::string& to, unsigned* moved);

  CgroupFs& fs_;
  const int version_;
  const pid_t pid_;
  const std::string parent_;
  const std::string directory_;
  std::string others_;  // v2: where other processes of the parent are put
  bool made_ = false;
  bool others_made_ = false;
  bool enabled_memory_ = false;  // in the parent's cgroup.subtree_control, by us
  unsigned moved_others_ = 0;
};

// v2's memory.high for a limit: where the kernel begins to take page cache back, a little before it
// has to. 1/64, and at least the 256 KiB that a processor charges ahead (64 pages).
uint64_t MemoryHigh(uint64_t limit_bytes);

}  // namespace thimble
