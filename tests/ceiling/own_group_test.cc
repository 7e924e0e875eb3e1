// Groups of our own on v2, against a model of the kernel's rules (admin-guide/cgroup-v2.rst): this
// is where the order of the steps is decided. ceiling_kernel_test has the real kernel.
#include "daemon/ceiling/own_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kUnit = "/cg/unit";

// A v2 hierarchy at /cg. Groups have processes; a group that is not the root gets no controllers
// for its children while it has processes, and no processes while it has them (no internal
// processes).
class FakeCgroup2 final : public CgroupFs {
 public:
  FakeCgroup2() {
    groups_["/cg"].subtree = true;
    groups_[kUnit].procs = {::getpid()};
  }

  struct Group {
    std::set<pid_t> procs;
    bool subtree = false;  // +memory in cgroup.subtree_control
    std::map<std::string, std::string> settings;
  };
  std::map<std::string, Group> groups_;
  std::vector<std::string> writes_;
  int mkdir_error_ = 0;
  int control_error_ = 0;  // of +memory
  pid_t vanished_ = -1;    // ESRCH
  int forks_ = 0;          // a process more in the unit at each look at its procs

  [[nodiscard]] Result<std::string> Read(const std::string& path) const override {
    const auto [directory, file] = Split(path);
    const auto group = groups_.find(directory);
    if (group == groups_.end()) return NotFoundError("open " + path);
    if (file == "cgroup.subtree_control") {
      return std::string(group->second.subtree ? "cpu memory\n" : "cpu\n");
    }
    if (file == "cgroup.procs") {
      std::string text;
      for (const pid_t pid : group->second.procs) text += std::to_string(pid) + "\n";
      return text;
    }
    return NotFoundError("open " + path);
  }
  [[nodiscard]] bool IsDirectory(const std::string& path) const override {
    return groups_.contains(path);
  }
  [[nodiscard]] std::vector<std::string> Children(const std::string& path) const override {
    std::vector<std::string> names;
    for (const auto& [name, group] : groups_) {
      if (Split(name).first == path) names.push_back(Split(name).second);
    }
    return names;
  }
  [[nodiscard]] int Write(const std::string& path, const std::string& text) override {
    const auto [directory, file] = Split(path);
    const auto found = groups_.find(directory);
    if (found == groups_.end()) return ENOENT;
    Group& group = found->second;
    writes_.push_back(file + "=" + text);
    if (file == "cgroup.procs") {
      const pid_t pid = std::stoi(text);
      if (pid == vanished_) {
        groups_[kUnit].procs.erase(pid);
        return ESRCH;
      }
      if (group.subtree && directory != "/cg") return EBUSY;
      for (auto& [name, other] : groups_) other.procs.erase(pid);
      group.procs.insert(pid);
      if (forks_ > 0 && pid != ::getpid()) groups_[kUnit].procs.insert(90'000 + forks_--);
      return 0;
    }
    if (file == "cgroup.subtree_control") {
      if (text == "-memory") {
        group.subtree = false;
        return 0;
      }
      if (control_error_ != 0) return control_error_;
      if (directory != "/cg" && !group.procs.empty()) return EBUSY;
      group.subtree = true;
      return 0;
    }
    // The controller's files are there only while the parent has it on for its children.
    if (!groups_.at(Split(directory).first).subtree) return ENOENT;
    group.settings[file] = text;
    return 0;
  }
  [[nodiscard]] int MakeDirectory(const std::string& path) override {
    if (mkdir_error_ != 0) return mkdir_error_;
    return groups_.try_emplace(path).second ? 0 : EEXIST;
  }
  [[nodiscard]] int RemoveDirectory(const std::string& path) override {
    const auto group = groups_.find(path);
    if (group == groups_.end()) return ENOENT;
    if (!group->second.procs.empty()) return EBUSY;
    groups_.erase(group);
    return 0;
  }

 private:
  static std::pair<std::string, std::string> Split(const std::string& path) {
    const size_t slash = path.rfind('/');
    return {path.substr(0, slash), path.substr(slash + 1)};
  }
};

MemoryGroup Unit() {
  MemoryGroup group;
  group.version = 2;
  group.directory = kUnit;
  group.mount_point = "/cg";
  return group;
}

std::string OwnDirectory() { return kUnit + "/thimble-" + std::to_string(::getpid()); }

TEST(OwnGroup, OnV2IsMadeEnteredAndLimitedInTheOrderTheKernelWants) {
  FakeCgroup2 fs;
  {
    const auto own = OwnGroup::Make(fs, Unit(), 32 * kMiB);
    ASSERT_TRUE(own.ok()) << own.status().ToString();
    EXPECT_EQ((*own)->directory(), OwnDirectory());
    EXPECT_EQ((*own)->moved_others(), 0U);
    const auto& group = fs.groups_.at(OwnDirectory());
    EXPECT_THAT(group.procs, ElementsAre(::getpid()));
    EXPECT_EQ(group.settings.at("memory.max"), "33554432");
    EXPECT_EQ(group.settings.at("memory.high"), std::to_string(32 * kMiB - 512 * kKiB));
    EXPECT_EQ(group.settings.at("memory.swap.max"), "0");
    EXPECT_EQ(group.settings.at("memory.oom.group"), "1");
  }
  EXPECT_THAT(fs.groups_.at(kUnit).procs, ElementsAre(::getpid()));
  EXPECT_FALSE(fs.groups_.at(kUnit).subtree);
  EXPECT_EQ(fs.groups_.size(), 2U);
}

TEST(OwnGroup, OnV2OtherProcessesAreMovedAsideWithoutALimitAndBroughtBack) {
  FakeCgroup2 fs;
  fs.groups_[kUnit].procs.insert({100, 200, 300});
  fs.vanished_ = 200;
  fs.forks_ = 2;
  {
    const auto own = OwnGroup::Make(fs, Unit(), 32 * kMiB);
    ASSERT_TRUE(own.ok()) << own.status().ToString();
    EXPECT_EQ((*own)->moved_others(), 4U);
    const auto& others = fs.groups_.at(OwnDirectory() + "-others");
    EXPECT_EQ(others.procs, (std::set<pid_t>{100, 300, 90'001, 90'002}));
    EXPECT_THAT(others.settings, IsEmpty());
    EXPECT_THAT(fs.groups_.at(OwnDirectory()).procs, ElementsAre(::getpid()));
  }
  EXPECT_EQ(fs.groups_.at(kUnit).procs, (std::set<pid_t>{::getpid(), 100, 300, 90'001, 90'002}));
  EXPECT_EQ(fs.groups_.size(), 2U);
}

TEST(OwnGroup, OnV2AKilledDaemonsSuccessorIsBesideItsGroupNotInIt) {
  FakeCgroup2 fs;
  fs.groups_[kUnit].procs.insert(100);  // the supervisor
  for (int crash = 0; crash < 5; ++crash) {
    const pid_t daemon = ::fork();
    if (daemon == 0) ::_exit(0);
    ASSERT_EQ(::waitpid(daemon, nullptr, 0), daemon);
    // What the kill of `daemon` leaves: its group empty, the supervisor aside, this process beside
    // the supervisor that has started it.
    const std::string left = kUnit + "/thimble-" + std::to_string(daemon);
    fs.groups_[left];
    fs.groups_[left + "-others"].procs = {100, ::getpid()};
    fs.groups_[kUnit].procs.clear();
    fs.groups_[kUnit].subtree = true;
    MemoryGroup aside = Unit();
    aside.directory = left + "-others";
    const auto own = OwnGroup::Make(fs, aside, 32 * kMiB);
    ASSERT_TRUE(own.ok()) << own.status().ToString();
    EXPECT_EQ((*own)->directory(), OwnDirectory());
    EXPECT_EQ(fs.groups_.at(OwnDirectory()).settings.at("memory.max"), "33554432");
    EXPECT_THAT(fs.groups_.at(left + "-others").procs, ElementsAre(100));
    EXPECT_FALSE(fs.groups_.contains(left));
  }
  // An orderly end leaves nothing of it.
  EXPECT_EQ(fs.groups_.at(kUnit).procs, (std::set<pid_t>{100, ::getpid()}));
  EXPECT_FALSE(fs.groups_.at(kUnit).subtree);
  EXPECT_EQ(fs.groups_.size(), 2U);
}

TEST(OwnGroup, OnV2BesideALivingDaemonItIsMadeWhereItWasStarted) {
  FakeCgroup2 fs;
  const std::string aside = kUnit + "/thimble-1-others";  // process 1 lives
  fs.groups_[aside].procs = {::getpid()};
  fs.groups_[kUnit].procs.clear();
  fs.groups_[kUnit].subtree = true;
  MemoryGroup group = Unit();
  group.directory = aside;
  {
    const auto own = OwnGroup::Make(fs, group, 32 * kMiB);
    ASSERT_TRUE(own.ok()) << own.status().ToString();
    EXPECT_TRUE((*own)->directory().starts_with(aside + "/thimble-"));
  }
  EXPECT_TRUE(fs.groups_.at(kUnit).subtree) << "the other one's";
}

TEST(OwnGroup, OnV2ARefusalLeavesEverythingAsItWas) {
  for (const int error : {EACCES, ENOENT, EROFS}) {
    FakeCgroup2 fs;
    fs.control_error_ = error;
    const auto own = OwnGroup::Make(fs, Unit(), 32 * kMiB);
    ASSERT_FALSE(own.ok());
    EXPECT_EQ(own.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(own.status().message(),
                HasSubstr("write +memory to /cg/unit/cgroup.subtree_control"));
    EXPECT_THAT(fs.groups_.at(kUnit).procs, ElementsAre(::getpid()));
    EXPECT_EQ(fs.groups_.size(), 2U);
  }
}

TEST(OwnGroup, OnAReadOnlyHierarchyIsRefused) {
  FakeCgroup2 fs;
  fs.mkdir_error_ = EROFS;
  const auto own = OwnGroup::Make(fs, Unit(), 32 * kMiB);
  ASSERT_FALSE(own.ok());
  EXPECT_THAT(own.status().message(), HasSubstr("mkdir " + OwnDirectory() + ": Read-only"));
  EXPECT_THAT(fs.writes_, IsEmpty());
}

TEST(OwnGroup, InTheRootGroupMovesNobodyAndLeavesTheControllerOn) {
  FakeCgroup2 fs;
  fs.groups_["/cg"].procs = {1, 2, ::getpid()};
  MemoryGroup root = Unit();
  root.directory = "/cg";
  {
    const auto own = OwnGroup::Make(fs, root, 32 * kMiB);
    ASSERT_TRUE(own.ok()) << own.status().ToString();
    EXPECT_EQ((*own)->moved_others(), 0U);
    EXPECT_EQ(fs.groups_["/cg"].procs, (std::set<pid_t>{1, 2}));
  }
  EXPECT_TRUE(fs.groups_["/cg"].subtree);
  EXPECT_EQ(fs.groups_["/cg"].procs, (std::set<pid_t>{1, 2, ::getpid()}));
}

TEST(OwnGroup, RemovesWhatDeadProcessesLeftBehindAndNothingElse) {
  FakeCgroup2 fs;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(dead, nullptr, 0), dead);
  fs.groups_[kUnit + "/thimble-" + std::to_string(dead)];
  fs.groups_[kUnit + "/thimble-" + std::to_string(dead) + "-others"];
  fs.groups_[kUnit + "/thimble-1"];  // alive
  fs.groups_[kUnit + "/thimble-x"];
  fs.groups_[kUnit + "/other"];
  fs.groups_[OwnDirectory()];  // of an earlier process with our number
  {
    const auto own = OwnGroup::Make(fs, Unit(), 32 * kMiB);
    ASSERT_TRUE(own.ok()) << own.status().ToString();
  }
  std::vector<std::string> left;
  for (const auto& [name, group] : fs.groups_) left.push_back(name);
  EXPECT_THAT(left, ElementsAre("/cg", kUnit, kUnit + "/other", kUnit + "/thimble-1",
                                kUnit + "/thimble-x"));
}

TEST(OwnGroup, IsNotMadeWhereTheControllerIsAnAncestors) {
  FakeCgroup2 fs;
  MemoryGroup unit = Unit();
  unit.is_own = false;
  EXPECT_EQ(OwnGroup::Make(fs, unit, 32 * kMiB).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(fs.writes_, IsEmpty());
}

// v1 checks limit <= memsw at each write.
class FakeCgroup1 final : public CgroupFs {
 public:
  uint64_t memory_ = UINT64_MAX;
  uint64_t memory_and_swap_ = UINT64_MAX;
  bool has_swap_ = true;
  std::vector<std::string> writes_;

  [[nodiscard]] Result<std::string> Read(const std::string& path) const override {
    if (path.ends_with("/memory.limit_in_bytes")) return std::to_string(memory_);
    if (path.ends_with("/memory.memsw.limit_in_bytes") && has_swap_) {
      return std::to_string(memory_and_swap_);
    }
    if (path.ends_with("/cgroup.procs")) return std::string();
    return NotFoundError(path);
  }
  [[nodiscard]] bool IsDirectory(const std::string& /*path*/) const override { return true; }
  [[nodiscard]] std::vector<std::string> Children(const std::string& /*path*/) const override {
    return {};
  }
  [[nodiscard]] int Write(const std::string& path, const std::string& text) override {
    writes_.push_back(path.substr(path.rfind('/') + 1) + "=" + text);
    if (path.ends_with("/memory.limit_in_bytes")) {
      if (std::stoull(text) > memory_and_swap_) return EINVAL;
      memory_ = std::stoull(text);
    }
    if (path.ends_with("/memory.memsw.limit_in_bytes")) {
      if (!has_swap_) return ENOENT;
      if (std::stoull(text) < memory_) return EINVAL;
      memory_and_swap_ = std::stoull(text);
    }
    return 0;
  }
  [[nodiscard]] int MakeDirectory(const std::string& /*path*/) override { return 0; }
  [[nodiscard]] int RemoveDirectory(const std::string& /*path*/) override { return 0; }
};

TEST(OwnGroup, OnV1SetsMemoryAndSwapInTheOrderTheKernelTakes) {
  MemoryGroup parent = Unit();
  parent.version = 1;
  for (const uint64_t before : {UINT64_MAX, 4 * kMiB}) {  // lowering and raising
    for (const bool has_swap : {true, false}) {
      FakeCgroup1 fs;
      fs.memory_ = before;
      fs.memory_and_swap_ = has_swap ? before : UINT64_MAX;
      fs.has_swap_ = has_swap;
      const auto own = OwnGroup::Make(fs, parent, 32 * kMiB);
      ASSERT_TRUE(own.ok()) << own.status().ToString();
      EXPECT_EQ(fs.memory_, 32 * kMiB);
      EXPECT_EQ(fs.memory_and_swap_, has_swap ? 36 * kMiB : UINT64_MAX);
      EXPECT_THAT(fs.writes_, testing::Contains("memory.swappiness=0"));
      EXPECT_EQ(fs.writes_[fs.writes_.size() - 2], "cgroup.procs=" + std::to_string(::getpid()));
      EXPECT_EQ(fs.writes_.back(), "memory.max_usage_in_bytes=0");
    }
  }
}

TEST(MemoryHigh, IsALittleUnderTheLimit) {
  EXPECT_EQ(MemoryHigh(16 * kMiB), 16 * kMiB - 256 * kKiB);
  EXPECT_EQ(MemoryHigh(64 * kMiB), 63 * kMiB);
  EXPECT_EQ(MemoryHigh(100 * kKiB), 100 * kKiB);
}

}  // namespace
}  // namespace thimble
