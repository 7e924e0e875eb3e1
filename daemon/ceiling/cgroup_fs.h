// The seam to the kernel's cgroup file system: small files read and written whole, directories made
// and removed. Tests put a kernel of their own behind it. Called by: cgroup.cc, own_group.cc,
// group_limit.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

// A file that is read again and again.
class CgroupFile {
 public:
  virtual ~CgroupFile() = default;
  // All of it, as it is now. Not from two threads.
  [[nodiscard]] virtual Result<std::string> Read() = 0;
};

class CgroupFs {
 public:
  virtual ~CgroupFs() = default;
  [[nodiscard]] virtual Result<std::string> Read(const std::string& path) const = 0;
  // Read(path), again and again; the kernel's is kept open between reads. Must not outlive this.
  [[nodiscard]] virtual std::unique_ptr<CgroupFile> Keep(const std::string& path) const;
  [[nodiscard]] virtual bool IsDirectory(const std::string& path) const = 0;
  // Names of the directories in `path`; none where it cannot be read.
  [[nodiscard]] virtual std::vector<std::string> Children(const std::string& path) const = 0;
  // These return 0 or an errno. Write makes one write(2), as the kernel's files want it, and never
  // creates a file.
  [[nodiscard]] virtual int Write(const std::string& path, const std::string& text) = 0;
  [[nodiscard]] virtual int MakeDirectory(const std::string& path) = 0;
  [[nodiscard]] virtual int RemoveDirectory(const std::string& path) = 0;
};

// The kernel's.
CgroupFs& KernelCgroupFs();

}  // namespace thimble
