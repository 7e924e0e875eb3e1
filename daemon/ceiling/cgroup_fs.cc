#include "daemon/ceiling/cgroup_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <utility>

namespace thimble {
namespace {

class NamedFile final : public CgroupFile {
 public:
  NamedFile(const CgroupFs& fs, std::string path) : fs_(fs), path_(std::move(path)) {}
  [[nodiscard]] Result<std::string> Read() override { return fs_.Read(path_); }

 private:
  const CgroupFs& fs_;
  const std::string path_;
};

class OpenFile final : public CgroupFile {
 public:
  explicit OpenFile(std::string path) : path_(std::move(path)) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() override { Close(); }

  [[nodiscard]] Result<std::string> Read() override {
    if (fd_ < 0) fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return ErrnoError(errno, "open " + path_);
    std::string text;
    std::array<char, 4096> block;  // NOLINT(*-member-init): the kernel's to fill
    ssize_t n = 0;
    while ((n = ::pread(fd_, block.data(), block.size(), static_cast<off_t>(text.size()))) != 0) {
      if (n > 0) text.append(block.data(), static_cast<size_t>(n));
      if (n < 0 && errno != EINTR) break;
    }
    if (n == 0) return text;
    const int error = errno;
    Close();  // the group is gone; perhaps another has its name
    return ErrnoError(error, "read " + path_);
  }

 private:
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  const std::string path_;
  int fd_ = -1;
};

class KernelFs final : public CgroupFs {
 public:
  [[nodiscard]] Result<std::string> Read(const std::string& path) const override {
    return OpenFile(path).Read();
  }

  [[nodiscard]] std::unique_ptr<CgroupFile> Keep(const std::string& path) const override {
    return std::make_unique<OpenFile>(path);
  }

  [[nodiscard]] bool IsDirectory(const std::string& path) const override {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
  }

  [[nodiscard]] std::vector<std::string> Children(const std::string& path) const override {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
    if (directory == nullptr) return names;
    while (const dirent* entry = ::readdir(directory.get())) {
      const std::string name = entry->d_name;
      if (entry->d_type == DT_DIR && name != "." && name != "..") names.push_back(name);
    }
    return names;
  }

  [[nodiscard]] int Write(const std::string& path, const std::string& text) override {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    ssize_t n = 0;
    do {
      n = ::write(fd, text.data(), text.size());
    } while (n < 0 && errno == EINTR);
    const int error = n < 0 ? errno : 0;
    ::close(fd);
    return error;
  }

  [[nodiscard]] int MakeDirectory(const std::string& path) override {
    return ::mkdir(path.c_str(), 0755) == 0 ? 0 : errno;
  }
  [[nodiscard]] int RemoveDirectory(const std::string& path) override {
    return ::rmdir(path.c_str()) == 0 ? 0 : errno;
  }
};

}  // namespace

std::unique_ptr<CgroupFile> CgroupFs::Keep(const std::string& path) const {
  return std::make_unique<NamedFile>(*this, path);
}

CgroupFs& KernelCgroupFs() {
  static KernelFs fs;
  return fs;
}

}  // namespace thimble
