#include "daemon/ceiling/own_group.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "daemon/ceiling/group_limit.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr std::string_view kPrefix = "thimble-";
constexpr std::string_view kOthersSuffix = "-others";

Status Refused(int error, const std::string& operation) {
  return FailedPreconditionError(operation + ": " + std::generic_category().message(error));
}

// The process whose group `name` is, "thimble-PID" or "thimble-PID-others"; 0: not such a name.
pid_t OwnerOf(std::string_view name) {
  if (!name.starts_with(kPrefix)) return 0;
  name.remove_prefix(kPrefix.size());
  if (name.ends_with(kOthersSuffix)) name.remove_suffix(kOthersSuffix.size());
  pid_t pid = 0;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), pid);
  return code == std::errc{} && end == name.data() + name.size() && pid > 0 ? pid : 0;
}

// Gone, or this process, which has the number of one that is gone.
bool IsGone(pid_t pid) { return pid == ::getpid() || (::kill(pid, 0) != 0 && errno == ESRCH); }

// Whether `directory` is where a daemon that was killed had put the others of its group aside.
bool IsLeftAside(std::string_view directory) {
  const std::string_view name = directory.substr(directory.rfind('/') + 1);
  const pid_t owner = OwnerOf(name);
  return name.ends_with(kOthersSuffix) && owner != 0 && IsGone(owner);
}

// What processes that died without leaving (killed, out of memory) left behind. rmdir refuses
// groups that are in use.
void RemoveLeftovers(CgroupFs& fs, const std::string& parent) {
  for (const std::string& name : fs.Children(parent)) {
    const pid_t owner = OwnerOf(name);
    if (owner == 0 || !IsGone(owner)) continue;
    (void)fs.RemoveDirectory(std::string(parent).append("/").append(name));
  }
}

}  // namespace

uint64_t MemoryHigh(uint64_t limit_bytes) {
  const uint64_t margin = std::max(limit_bytes / 64, 256 * kKiB);
  return limit_bytes > margin ? AlignDown(limit_bytes - margin, 4096) : limit_bytes;
}

OwnGroup::OwnGroup(CgroupFs& fs, const MemoryGroup& parent)
    : fs_(fs),
      version_(parent.version),
      pid_(::getpid()),
      parent_(parent.directory),
      directory_(parent_ + "/" + std::string(kPrefix) + std::to_string(pid_)),
      others_(directory_ + std::string(kOthersSuffix)) {}

Result<std::unique_ptr<OwnGroup>> OwnGroup::Make(CgroupFs& fs, const MemoryGroup& parent,
                                                 uint64_t limit_bytes) {
  if (!parent.is_own) {
    return FailedPreconditionError(
        "the memory controller is not given to this process's group, only to " + parent.directory);
  }
  MemoryGroup beneath = parent;
  // Whoever starts the daemon again after it was killed is still where it was put aside, and so is
  // the daemon: its group is made beside that one, not in it, however often this happens.
  const bool aside = parent.version == 2 && IsLeftAside(parent.directory);
  if (aside) beneath.directory.resize(parent.directory.rfind('/'));
  RemoveLeftovers(fs, beneath.directory);
  std::unique_ptr<OwnGroup> group(new OwnGroup(fs, beneath));
  if (aside) group->TakeOver(parent.directory);
  if (const int error = fs.MakeDirectory(group->directory_); error != 0) {
    return Refused(error, "mkdir " + group->directory_);
  }
  group->made_ = true;
  THIMBLE_RETURN_IF_ERROR(parent.version == 1 ? group->MakeV1(limit_bytes)
                                              : group->MakeV2(limit_bytes));
  return group;
}

void OwnGroup::TakeOver(const std::string& others) {
  others_ = others;
  others_made_ = true;
  enabled_memory_ = true;
}

Status OwnGroup::MakeV1(uint64_t limit_bytes) {
  THIMBLE_RETURN_IF_ERROR(SetV1MemoryLimit(fs_, directory_, limit_bytes));
  THIMBLE_RETURN_IF_ERROR(Write(directory_ + "/cgroup.procs", std::to_string(pid_)));
  (void)fs_.Write(directory_ + "/memory.max_usage_in_bytes", "0");
  return {};
}

Status OwnGroup::MakeV2(uint64_t limit_bytes) {
  THIMBLE_RETURN_IF_ERROR(Write(directory_ + "/cgroup.procs", std::to_string(pid_)));
  THIMBLE_RETURN_IF_ERROR(EnableMemory());
  THIMBLE_RETURN_IF_ERROR(Write(directory_ + "/memory.max", std::to_string(limit_bytes)));
  THIMBLE_RETURN_IF_ERROR(
      Write(directory_ + "/memory.high", std::to_string(MemoryHigh(limit_bytes))));
  // Kernels without swap, or before 4.19, have no such files.
  (void)fs_.Write(directory_ + "/memory.swap.max", "0");
  (void)fs_.Write(directory_ + "/memory.oom.group", "1");
  return {};
}

Status OwnGroup::EnableMemory() {
  const std::string control = parent_ + "/cgroup.subtree_control";
  const Result<std::string> enabled = fs_.Read(control);
  std::string words = " " + (enabled.ok() ? *enabled : std::string()) + " ";
  std::replace(words.begin(), words.end(), '\n', ' ');
  if (words.find(" memory ") != std::string::npos) return {};
  // EBUSY: the group has processes still. They may fork while they are moved, hence again.
  int error = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    error = fs_.Write(control, "+memory");
    if (error == 0) {
      enabled_memory_ = true;
      return {};
    }
    if (error != EBUSY) break;
    if (!others_made_) {
      if (const int failed = fs_.MakeDirectory(others_); failed != 0) {
        return Refused(failed, "mkdir " + others_);
      }
      others_made_ = true;
    }
    THIMBLE_RETURN_IF_ERROR(MoveAll(parent_, others_, &moved_others_));
  }
  return Refused(error, "write +memory to " + control);
}

Status OwnGroup::Write(const std::string& path, const std::string& text) {
  return WriteGroupFile(fs_, path, text);
}

Status OwnGroup::MoveAll(const std::string& from, const std::string& to, unsigned* moved) {
  THIMBLE_ASSIGN_OR_RETURN(const std::string procs, fs_.Read(from + "/cgroup.procs"));
  const std::string target = to + "/cgroup.procs";
  std::string_view rest = procs;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string pid(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const int error = fs_.Write(target, pid);
    if (error == ESRCH) continue;
    if (error != 0) {
      return Refused(error, std::string("write ").append(pid).append(" to ").append(target));
    }
    if (moved != nullptr) ++*moved;
  }
  return {};
}

OwnGroup::~OwnGroup() {
  if (!made_ || ::getpid() != pid_) return;
  // With the controller on for its children the parent takes no processes.
  if (enabled_memory_) (void)fs_.Write(parent_ + "/cgroup.subtree_control", "-memory");
  (void)MoveAll(directory_, parent_, nullptr);
  (void)fs_.RemoveDirectory(directory_);
  if (!others_made_) return;
  (void)MoveAll(others_, parent_, nullptr);
  (void)fs_.RemoveDirectory(others_);
}

}  // namespace thimble
