#include "client/bench_group.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "daemon/ceiling/cgroup.h"
#include "daemon/ceiling/group_limit.h"

namespace thimble {
namespace {

// The v1 hierarchy with the blkio controller, from mountinfo(5): "... MOUNT ... - cgroup SOURCE
// rw,blkio". Empty: none.
std::string BlkioMount(const std::string& mountinfo) {
  std::istringstream lines(mountinfo);
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - cgroup ");
    if (dash == std::string::npos) continue;
    std::istringstream tail(line.substr(dash + 3));
    std::string type;
    std::string source;
    std::string options;
    tail >> type >> source >> options;
    if (("," + options + ",").find(",blkio,") == std::string::npos) continue;
    std::istringstream head(line);
    std::string mount;
    for (int field = 0; field < 5; ++field) head >> mount;
    return mount;
  }
  return {};
}

std::string NextName() {
  static std::atomic<unsigned> made{0};
  return "thimble-bench-" + std::to_string(::getpid()) + "-" + std::to_string(++made);
}

}  // namespace

Result<std::unique_ptr<BenchGroup>> BenchGroup::Make(CgroupFs& fs, const BenchGroupOptions& options,
                                                     const CgroupPaths& paths) {
  THIMBLE_ASSIGN_OR_RETURN(const MemoryGroup found, FindMemoryGroup(paths));
  std::unique_ptr<BenchGroup> group(new BenchGroup(fs, found.version));
  const std::string name = NextName();
  if (found.version == 2) {
    THIMBLE_RETURN_IF_ERROR(group->EnableController(found.mount_point, "memory"));
  }
  THIMBLE_RETURN_IF_ERROR(group->MakeDirectory(found.mount_point, name));
  THIMBLE_RETURN_IF_ERROR(group->Limit(options, found.mount_point));
  if (options.flash_bytes_per_second > 0) {
    THIMBLE_RETURN_IF_ERROR(group->Throttle(options, found.mount_point, name, paths));
  }
  return group;
}

Status BenchGroup::MakeDirectory(const std::string& mount_point, const std::string& name) {
  const std::string directory = mount_point + "/" + name;
  if (const int error = fs_.MakeDirectory(directory); error != 0) {
    return FailedPreconditionError("mkdir " + directory + ": " +
                                   std::generic_category().message(error));
  }
  directories_.push_back(directory);
  procs_files_.push_back(directory + "/cgroup.procs");
  return {};
}

Status BenchGroup::Limit(const BenchGroupOptions& options, const std::string& /*mount_point*/) {
  const std::string& directory = directories_.front();
  if (options.limit_bytes == kNoCeiling) return {};
  if (version_ == 1) return SetV1MemoryLimit(fs_, directory, options.limit_bytes);
  THIMBLE_RETURN_IF_ERROR(
      WriteGroupFile(fs_, directory + "/memory.max", std::to_string(options.limit_bytes)));
  // Kernels without swap, or before 4.19, have no such files.
  (void)fs_.Write(directory + "/memory.swap.max", "0");
  (void)fs_.Write(directory + "/memory.oom.group", "1");
  return {};
}

// v1: blkio.throttle.read_bps_device; v2: io.max. Both count what a group's processes read, past
// the page cache or not.
Status BenchGroup::Throttle(const BenchGroupOptions& options, const std::string& mount_point,
                            const std::string& name, const CgroupPaths& paths) {
  const std::string rate = std::to_string(options.flash_bytes_per_second);
  if (version_ == 2) {
    THIMBLE_RETURN_IF_ERROR(EnableController(mount_point, "io"));
    return WriteGroupFile(fs_, directories_.front() + "/io.max", options.device + " rbps=" + rate);
  }
  THIMBLE_ASSIGN_OR_RETURN(const std::string mountinfo, fs_.Read(paths.mountinfo));
  const std::string blkio = BlkioMount(mountinfo);
  if (blkio.empty()) return FailedPreconditionError("no blkio controller is mounted here");
  THIMBLE_RETURN_IF_ERROR(MakeDirectory(paths.root + blkio, name));
  return WriteGroupFile(fs_, directories_.back() + "/blkio.throttle.read_bps_device",
                        options.device + " " + rate);
}

Status BenchGroup::EnableController(const std::string& mount_point, const std::string& controller) {
  const std::string control = mount_point + "/cgroup.subtree_control";
  THIMBLE_ASSIGN_OR_RETURN(const std::string enabled, fs_.Read(control));
  std::istringstream words(enabled);
  for (std::string word; words >> word;) {
    if (word == controller) return {};
  }
  THIMBLE_RETURN_IF_ERROR(WriteGroupFile(fs_, control, "+" + controller));
  enabled_.push_back(controller);
  return {};
}

BenchGroup::~BenchGroup() {
  using std::chrono::milliseconds;
  std::string mount_point;
  for (const std::string& directory : directories_) {
    if (mount_point.empty()) mount_point = directory.substr(0, directory.rfind('/'));
    for (int attempt = 0; attempt < 100; ++attempt) {
      if (fs_.RemoveDirectory(directory) != EBUSY) break;
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  for (const std::string& controller : enabled_) {
    (void)fs_.Write(mount_point + "/cgroup.subtree_control", "-" + controller);
  }
}

Result<CeilingUsage> BenchGroup::Usage() const {
  return ReadGroupUsage(fs_, version_, directories_.front());
}

Result<std::string> DeviceOf(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return ErrnoError(errno, "stat " + path);
  const std::string number =
      std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev));
  std::error_code error;
  std::filesystem::path device = std::filesystem::canonical("/sys/dev/block/" + number, error);
  if (error) {
    return NotFoundError(path + " lies on no block device (" + number +
                         "), so that reading it cannot be slowed down");
  }
  if (!std::filesystem::exists(device / "partition", error)) return number;
  device = device.parent_path();
  THIMBLE_ASSIGN_OR_RETURN(std::string disk, KernelCgroupFs().Read(device / "dev"));
  while (!disk.empty() && disk.back() == '\n') disk.pop_back();
  return disk;
}

}  // namespace thimble
