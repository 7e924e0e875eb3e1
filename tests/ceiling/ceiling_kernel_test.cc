// The ceiling on the running kernel. Every test forks a child into a group made for it at the top
// of the memory hierarchy, so that nothing of the machine's is touched but that group.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include "daemon/ceiling/ceiling.h"
#include "daemon/ceiling/cgroup_fs.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

struct Outcome {
  int exit_code = -1;  // -1: killed
  int signal = 0;
  std::string text;  // what the child wrote, where it ended by itself
};

class CeilingOnThisKernel : public testing::Test {
 protected:
  void SetUp() override {
    const Result<MemoryGroup> current = FindMemoryGroup();
    if (!current.ok()) GTEST_SKIP() << current.status().ToString();
    version_ = current->version;
    group_ = current->mount_point + "/thimble-test-" + std::to_string(::getpid());
    if (const int error = fs_.MakeDirectory(group_); error != 0) {
      group_.clear();
      GTEST_SKIP() << "no group can be made in " << current->mount_point << ": "
                   << std::generic_category().message(error);
    }
    if (version_ == 2 && !fs_.Read(group_ + "/memory.max").ok()) {
      GTEST_SKIP() << "the root group does not give the memory controller to its children";
    }
  }

  void TearDown() override {
    if (group_.empty()) return;
    for (const std::string& child : fs_.Children(group_)) {
      EXPECT_EQ(fs_.RemoveDirectory(group_ + "/" + child), 0) << child;
    }
    EXPECT_EQ(fs_.RemoveDirectory(group_), 0);
  }

  // Runs `body` in a child that has entered the test's group; 0 and a text is its success.
  Outcome InGroup(const std::function<std::string()>& body) {
    std::array<int, 2> fds{};
    EXPECT_EQ(::pipe(fds.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      if (fs_.Write(group_ + "/cgroup.procs", std::to_string(::getpid())) != 0) ::_exit(77);
      const std::string text = body();
      const ssize_t n = ::write(fds[1], text.data(), text.size());
      ::_exit(n == static_cast<ssize_t>(text.size()) ? 0 : 1);
    }
    ::close(fds[1]);
    last_child_ = child;
    Outcome outcome;
    std::array<char, 512> block{};
    ssize_t n = 0;
    while ((n = ::read(fds[0], block.data(), block.size())) > 0) {
      outcome.text.append(block.data(), static_cast<size_t>(n));
    }
    ::close(fds[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
    return outcome;
  }

  [[nodiscard]] std::string ChildsGroup() const {
    return group_ + "/thimble-" + std::to_string(last_child_);
  }

  CgroupFs& fs_ = KernelCgroupFs();
  int version_ = 0;
  std::string group_;
  pid_t last_child_ = 0;
};

// Touches every page of `bytes` of new memory, and keeps it.
bool Touch(size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  std::memset(memory, 1, bytes);
  return true;
}

TEST_F(CeilingOnThisKernel, AnOwnGroupHoldsTheProcessAndIsGoneAtTheEnd) {
  const Outcome outcome = InGroup([this]() -> std::string {
    auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup);
    if (!ceiling.ok()) return ceiling.status().ToString();
    if (!(*ceiling)->own_group() || (*ceiling)->ceiling_bytes() != 32 * kMiB) return "no own group";
    if ((*ceiling)->directory() != group_ + "/thimble-" + std::to_string(::getpid())) {
      return "wrong directory " + (*ceiling)->directory();
    }
    const Result<MemoryGroup> found = FindMemoryGroup();
    if (!found.ok() || found->directory != (*ceiling)->directory()) return "not moved";
    if (found->limit_bytes > 32 * kMiB || found->limit_bytes < 31 * kMiB) return "not limited";
    const Result<CeilingUsage> before = (*ceiling)->Usage();
    if (!before.ok()) return before.status().ToString();
    if (!Touch(20 * kMiB)) return "no memory";
    const Result<CeilingUsage> after = (*ceiling)->Usage();
    if (!after.ok()) return after.status().ToString();
    if (after->anonymous < before->anonymous + 19 * kMiB) return "anonymous is too small";
    if (after->current < after->anonymous || after->current > 32 * kMiB) return "current";
    if (after->peak != 0 && (after->peak < 20 * kMiB || after->peak > 32 * kMiB)) return "peak";
    if (after->oom_kills != 0) return "OOM kills";
    ceiling->reset();
    const Result<MemoryGroup> back = FindMemoryGroup();
    if (!back.ok() || back->directory != group_) return "not moved back";
    return "ok";
  });
  EXPECT_EQ(outcome.exit_code, 0) << "signal " << outcome.signal;
  EXPECT_EQ(outcome.text, "ok");
  EXPECT_FALSE(fs_.IsDirectory(ChildsGroup()));
}

TEST_F(CeilingOnThisKernel, AProcessThatTakesMoreIsKilled) {
  const Outcome outcome = InGroup([]() -> std::string {
    const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup);
    if (!ceiling.ok()) return ceiling.status().ToString();
    return Touch(64 * kMiB) ? "touched 64 MiB" : "no memory";
  });
  EXPECT_EQ(outcome.signal, SIGKILL) << outcome.exit_code << " " << outcome.text;
  // What it could not clear away, the next one does.
  ASSERT_TRUE(fs_.IsDirectory(ChildsGroup()));
  const std::string left = ChildsGroup();
  const Outcome next = InGroup([]() -> std::string {
    const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup);
    return ceiling.ok() ? "ok" : ceiling.status().ToString();
  });
  EXPECT_EQ(next.text, "ok");
  EXPECT_FALSE(fs_.IsDirectory(left));
}

TEST_F(CeilingOnThisKernel, PageCacheCountsAndIsGivenBackInsteadOfAKill) {
  // In /var/tmp: /tmp may be a tmpfs, whose pages cannot be given back.
  std::string path = "/var/tmp/thimble_XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_GE(fd, 0);
  ::unlink(path.c_str());
  constexpr uint64_t kFileBytes = 64 * kMiB;
  const std::vector<char> block(kMiB, 'x');
  for (uint64_t i = 0; i < kFileBytes; i += kMiB) {
    ASSERT_EQ(::write(fd, block.data(), kMiB), static_cast<ssize_t>(kMiB));
  }
  ASSERT_EQ(::fsync(fd), 0);
  // Written by this process: its cache is charged to another group until it is read again.
  ASSERT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  const Outcome outcome = InGroup([&]() -> std::string {
    const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup);
    if (!ceiling.ok()) return ceiling.status().ToString();
    std::vector<char> buffer(kMiB);
    uint64_t bytes = 0;
    ssize_t n = 0;
    while ((n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(bytes))) > 0) {
      bytes += static_cast<uint64_t>(n);
    }
    if (bytes != kFileBytes) return "short file";
    const Result<CeilingUsage> usage = (*ceiling)->Usage();
    if (!usage.ok()) return usage.status().ToString();
    if (usage->page_cache < 16 * kMiB) return "page cache " + FormatBytes(usage->page_cache);
    if (usage->peak != 0 && (usage->peak < 28 * kMiB || usage->peak > 32 * kMiB)) {
      return "peak " + FormatBytes(usage->peak);
    }
    if (usage->failures == 0) return "no failures at the limit";
    return usage->oom_kills == 0 ? "ok" : "OOM kills";
  });
  ::close(fd);
  EXPECT_EQ(outcome.exit_code, 0) << "signal " << outcome.signal;
  EXPECT_EQ(outcome.text, "ok");
}

TEST_F(CeilingOnThisKernel, AStricterLimitOfTheParentIsAdopted) {
  const std::string limit = group_ + (version_ == 1 ? "/memory.limit_in_bytes" : "/memory.max");
  ASSERT_EQ(fs_.Write(limit, std::to_string(24 * kMiB)), 0);
  const Outcome outcome = InGroup([&]() -> std::string {
    const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup);
    if (!ceiling.ok()) return ceiling.status().ToString();
    if ((*ceiling)->own_group()) return "own group";
    if ((*ceiling)->directory() != group_) return (*ceiling)->directory();
    return FormatBytes((*ceiling)->ceiling_bytes()) + "; " + (*ceiling)->notes()[0];
  });
  EXPECT_EQ(outcome.text, "24.0 MiB; adopted the limit in force, 24.0 MiB in " + limit +
                              ", which is stricter than --ram-ceiling 32.0 MiB");
}

TEST_F(CeilingOnThisKernel, AForkedChildDoesNotTakeTheGroupAway) {
  const Outcome outcome = InGroup([]() -> std::string {
    auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup);
    if (!ceiling.ok()) return ceiling.status().ToString();
    const pid_t child = ::fork();
    if (child == 0) {
      ceiling->reset();
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    const Result<MemoryGroup> found = FindMemoryGroup();
    return found.ok() && found->directory == (*ceiling)->directory() ? "ok" : "moved away";
  });
  EXPECT_EQ(outcome.text, "ok");
}

}  // namespace
}  // namespace thimble
