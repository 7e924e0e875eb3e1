#include "daemon/ceiling/cgroup.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

// v1's "unlimited" is LONG_MAX / page size pages: 0x7FFFFFFFFFFFF000 on 64-bit machines with 4 KiB
// pages, 0x7FFFFFFFFFFF0000 with 64 KiB; on 32-bit machines LONG_MAX pages: 0x7FFFFFFF000, just
// under 8 TiB. No machine that thimble is for has a limit of that size in earnest.
constexpr uint64_t kUnlimited = 0x7FFFFFFF000;

constexpr const char* kPiHint =
    "on a Raspberry Pi add cgroup_enable=memory cgroup_memory=1 to cmdline.txt and reboot";

// Cuts the first field off `text`, up to `separator`.
std::string_view Cut(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view field = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return field;
}

// Whether `word` is in `list`, separated by `separator`; a line break at the end is none of it.
bool Contains(std::string_view list, std::string_view word, char separator) {
  while (!list.empty() && list.back() == '\n') list.remove_suffix(1);
  while (!list.empty()) {
    if (Cut(list, separator) == word) return true;
  }
  return false;
}

// mountinfo writes space, tab, line break and backslash as \ooo.
std::string DecodeOctal(std::string_view text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::optional<uint64_t> ParseNumber(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  uint64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

uint64_t ReadNumber(const CgroupFs& fs, const std::string& path) {
  const Result<std::string> text = fs.Read(path);
  return text.ok() ? ParseNumber(*text).value_or(0) : 0;
}

bool IsBeneath(std::string_view path, std::string_view root) {
  return root == "/" || path == root ||
         (path.starts_with(root) && path.size() > root.size() && path[root.size()] == '/');
}

// The directory of group `path` under `mount`. In containers the mount is of the group itself, and
// paths are of the host, or lead out of the namespace: then the mount point is the group.
std::string GroupDirectory(const CgroupFs& fs, const CgroupMount& mount, std::string path,
                           const std::string& prefix) {
  std::string mount_point = prefix + mount.mount_point;
  if (!IsBeneath(path, mount.root)) return mount_point;
  if (mount.root != "/") path.erase(0, mount.root.size());
  if (path.empty() || path == "/" || Contains(path, "..", '/')) return mount_point;
  std::string directory = mount_point + path;
  return fs.IsDirectory(directory) ? directory : mount_point;
}

// The mount that shows group `path`, or else the first of its version.
const CgroupMount* ChooseMount(const std::vector<CgroupMount>& mounts, int version,
                               std::string_view path) {
  const CgroupMount* chosen = nullptr;
  for (const CgroupMount& mount : mounts) {
    if (mount.version != version) continue;
    if (IsBeneath(path, mount.root)) return &mount;
    if (chosen == nullptr) chosen = &mount;
  }
  return chosen;
}

void TakeLimit(std::optional<uint64_t> limit, const std::string& file, MemoryGroup* group) {
  if (limit.has_value() && *limit < group->limit_bytes) {
    group->limit_bytes = *limit;
    group->limit_file = file;
  }
}

// The strictest limit from the group's directory up to the mount point.
void FindLimit(const CgroupFs& fs, const std::string& mount_point, MemoryGroup* group) {
  group->limit_bytes = UINT64_MAX;
  for (std::string directory = group->directory; directory.size() >= mount_point.size();
       directory.erase(directory.rfind('/'))) {
    for (const char* name : {"/memory.limit_in_bytes", "/memory.max", "/memory.high"}) {
      if ((group->version == 1) != (std::string_view(name) == "/memory.limit_in_bytes")) continue;
      const Result<std::string> text = fs.Read(directory + name);
      if (text.ok()) TakeLimit(ParseLimit(*text), directory + name, group);
    }
    if (directory == mount_point) break;
  }
  if (group->version != 1) return;
  // v1 tells of ancestors that a container does not show, too.
  const std::string stat = group->directory + "/memory.stat";
  if (const Result<std::string> text = fs.Read(stat); text.ok()) {
    const std::optional<uint64_t> limit = ParseStat(*text, "hierarchical_memory_limit");
    if (limit.has_value() && *limit < kUnlimited) TakeLimit(limit, stat, group);
  }
}

Status NoController(const CgroupFs& fs, const std::string& cgroups) {
  const Result<std::string> text = fs.Read(cgroups);
  std::string_view lines = text.ok() ? std::string_view(*text) : std::string_view();
  while (!lines.empty()) {
    std::string_view line = Cut(lines, '\n');
    if (Cut(line, '\t') != "memory") continue;
    if (line.ends_with("\t0")) {
      return NotFoundError(
          "no memory controller: the kernel was booted with it off (memory: enabled=0 in " +
          cgroups + "); " + kPiHint);
    }
    return NotFoundError(
        "no memory controller: the kernel has one, but it is not mounted where this process sees "
        "it, or not given to its group (cgroup.controllers)");
  }
  return NotFoundError("no memory controller: the kernel names none in " + cgroups + "; " +
                       kPiHint);
}

}  // namespace

std::vector<CgroupMount> ParseMountinfo(std::string_view mountinfo) {
  std::vector<CgroupMount> mounts;
  while (!mountinfo.empty()) {
    // 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
    std::string_view line = Cut(mountinfo, '\n');
    const size_t separator = line.find(" - ");
    if (separator == std::string_view::npos) continue;
    std::string_view tail = line.substr(separator + 3);
    line = line.substr(0, separator);
    for (int skipped = 0; skipped < 3; ++skipped) Cut(line, ' ');
    const std::string_view root = Cut(line, ' ');
    const std::string_view mount_point = Cut(line, ' ');
    const std::string_view type = Cut(tail, ' ');
    Cut(tail, ' ');  // the source
    if (root.empty() || mount_point.empty()) continue;
    if (type == "cgroup2" || (type == "cgroup" && Contains(tail, "memory", ','))) {
      mounts.push_back({type == "cgroup2" ? 2 : 1, DecodeOctal(root), DecodeOctal(mount_point)});
    }
  }
  return mounts;
}

std::optional<std::string> ParseCgroupPath(std::string_view cgroup, int version) {
  while (!cgroup.empty()) {
    std::string_view line = Cut(cgroup, '\n');
    const std::string_view hierarchy = Cut(line, ':');
    const std::string_view controllers = Cut(line, ':');
    const bool found = version == 2 ? hierarchy == "0" && controllers.empty()
                                    : Contains(controllers, "memory", ',');
    if (found && line.starts_with('/')) return std::string(line);
  }
  return std::nullopt;
}

std::optional<uint64_t> ParseStat(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    std::string_view line = Cut(text, '\n');
    if (Cut(line, ' ') == key) return ParseNumber(line);
  }
  return std::nullopt;
}

std::optional<uint64_t> ParseLimit(std::string_view text) {
  if (text == "max" || text == "max\n") return UINT64_MAX;
  const std::optional<uint64_t> limit = ParseNumber(text);
  if (limit.has_value() && *limit >= kUnlimited) return UINT64_MAX;
  return limit;
}

Result<MemoryGroup> FindMemoryGroup(const CgroupPaths& paths) {
  const CgroupFs& fs = paths.fs != nullptr ? *paths.fs : KernelCgroupFs();
  THIMBLE_ASSIGN_OR_RETURN(const std::string mountinfo, fs.Read(paths.mountinfo));
  THIMBLE_ASSIGN_OR_RETURN(const std::string cgroup, fs.Read(paths.cgroup));
  const std::vector<CgroupMount> mounts = ParseMountinfo(mountinfo);
  for (const int version : {1, 2}) {
    const std::optional<std::string> path = ParseCgroupPath(cgroup, version);
    if (!path.has_value()) continue;
    const CgroupMount* mount = ChooseMount(mounts, version, *path);
    if (mount == nullptr) continue;
    MemoryGroup group;
    group.version = version;
    group.directory = GroupDirectory(fs, *mount, *path, paths.root);
    group.mount_point = paths.root + mount->mount_point;
    if (version == 2) {
      // The kernel charges the nearest group that has the controller.
      while (true) {
        const Result<std::string> controllers = fs.Read(group.directory + "/cgroup.controllers");
        if (controllers.ok() && Contains(*controllers, "memory", ' ')) break;
        group.is_own = false;
        if (group.directory == group.mount_point) return NoController(fs, paths.cgroups);
        group.directory.erase(group.directory.rfind('/'));
      }
    }
    FindLimit(fs, group.mount_point, &group);
    return group;
  }
  return NoController(fs, paths.cgroups);
}

Result<CeilingUsage> ReadGroupUsage(const CgroupFs& fs, int version, const std::string& directory) {
  const bool v1 = version == 1;
  const std::string current = directory + (v1 ? "/memory.usage_in_bytes" : "/memory.current");
  CeilingUsage usage;
  THIMBLE_ASSIGN_OR_RETURN(const std::string text, fs.Read(current));
  const std::optional<uint64_t> bytes = ParseNumber(text);
  if (!bytes.has_value()) return DataLossError("read " + current + ": \"" + text + "\"");
  usage.current = *bytes;
  usage.peak = ReadNumber(fs, directory + (v1 ? "/memory.max_usage_in_bytes" : "/memory.peak"));
  THIMBLE_ASSIGN_OR_RETURN(const std::string stat, fs.Read(directory + "/memory.stat"));
  // v1's total_ lines include groups beneath, as the usage does.
  usage.page_cache = ParseStat(stat, v1 ? "total_cache" : "file").value_or(0);
  usage.anonymous = ParseStat(stat, v1 ? "total_rss" : "anon").value_or(0);
  usage.locked = ParseStat(stat, v1 ? "total_unevictable" : "unevictable").value_or(0);
  const std::string events_file = directory + (v1 ? "/memory.oom_control" : "/memory.events");
  const Result<std::string> events = fs.Read(events_file);
  if (events.ok()) usage.oom_kills = ParseStat(*events, "oom_kill").value_or(0);
  if (v1) {
    // Where someone set both limits the same, charges run into memsw's first.
    usage.failures = ReadNumber(fs, directory + "/memory.failcnt") +
                     ReadNumber(fs, directory + "/memory.memsw.failcnt");
  } else if (events.ok()) {
    usage.failures = ParseStat(*events, "max").value_or(0);
  }
  return usage;
}

std::optional<uint64_t> ParseProcessStatus(std::string_view status, std::string_view key) {
  while (!status.empty()) {
    std::string_view line = Cut(status, '\n');
    if (Cut(line, ':') != key) continue;
    while (line.starts_with('\t') || line.starts_with(' ')) line.remove_prefix(1);
    const std::optional<uint64_t> kib = ParseNumber(Cut(line, ' '));
    return kib.has_value() ? std::optional<uint64_t>(*kib * kKiB) : std::nullopt;
  }
  return std::nullopt;
}

Result<CeilingUsage> ReadProcessUsage() {
  THIMBLE_ASSIGN_OR_RETURN(const std::string status, KernelCgroupFs().Read("/proc/self/status"));
  CeilingUsage usage;
  usage.current = ParseProcessStatus(status, "VmRSS").value_or(0);
  usage.peak = ParseProcessStatus(status, "VmHWM").value_or(0);
  usage.anonymous = ParseProcessStatus(status, "RssAnon").value_or(0);
  usage.page_cache = ParseProcessStatus(status, "RssFile").value_or(0);
  return usage;
}

}  // namespace thimble
