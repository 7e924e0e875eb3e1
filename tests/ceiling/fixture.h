// A directory that looks like a machine to the detection: mountinfo, cgroup, the groups' files.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "daemon/ceiling/ceiling.h"

namespace thimble {

class Machine {
 public:
  Machine(const std::string& mountinfo, const std::string& cgroup) {
    std::string name = std::filesystem::temp_directory_path() / "thimble_XXXXXX";
    root_ = ::mkdtemp(name.data());
    Write("/proc/self/mountinfo", mountinfo);
    Write("/proc/self/cgroup", cgroup);
    Write("/proc/cgroups",
          "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t9\t1\nmemory\t4\t80\t1\n");
  }
  ~Machine() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  [[nodiscard]] CgroupPaths paths() const {
    CgroupPaths paths;
    paths.mountinfo = root_ + "/proc/self/mountinfo";
    paths.cgroup = root_ + "/proc/self/cgroup";
    paths.cgroups = root_ + "/proc/cgroups";
    paths.root = root_;
    return paths;
  }
  [[nodiscard]] const std::string& root() const { return root_; }

 private:
  std::string root_;
};

inline constexpr const char* kNoLimitV1 = "9223372036854771712\n";

}  // namespace thimble
