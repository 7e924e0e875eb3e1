#include "daemon/ceiling/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/base/bytes.h"
#include "tests/ceiling/fixture.h"

namespace thimble {
namespace {

using testing::HasSubstr;

constexpr const char* kV1Mounts =
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

// Debian 10 and its like: v1 controllers, v2 for systemd's own use, optional fields before the
// dash.
constexpr const char* kHybridMounts =
    "30 25 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
    "32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup "
    "rw,xattr,name=systemd\n"
    "36 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 master:3 - cgroup cgroup "
    "rw,cpu,cpuacct\n"
    "37 30 0:33 / /sys/fs/cgroup/memory rw,nosuid shared:17 - cgroup cgroup rw,memory\n";

constexpr const char* kV2Mounts =
    "24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "33 24 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 "
    "rw,nsdelegate,memory_recursiveprot\n";

TEST(FindMemoryGroup, OnABareV1Host) {
  const Machine machine(kV1Mounts, "9:name=systemd:/\n4:memory:/jobs/7\n1:cpu:/\n0::/\n");
  const std::string base = "/sys/fs/cgroup/memory";
  machine.Write(base + "/memory.limit_in_bytes", kNoLimitV1);
  machine.Write(base + "/jobs/memory.limit_in_bytes", "67108864\n");
  machine.Write(base + "/jobs/7/memory.limit_in_bytes", "134217728\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->version, 1);
  EXPECT_TRUE(group->is_own);
  EXPECT_EQ(group->directory, machine.root() + base + "/jobs/7");
  EXPECT_EQ(group->limit_bytes, 64 * kMiB);  // the parent's is the stricter
  EXPECT_EQ(group->limit_file, machine.root() + base + "/jobs/memory.limit_in_bytes");
}

TEST(FindMemoryGroup, UnderSystemdWithTheHybridLayout) {
  const Machine machine(kHybridMounts,
                        "11:memory:/system.slice/thimbled.service\n"
                        "6:cpu,cpuacct:/system.slice/thimbled.service\n"
                        "1:name=systemd:/system.slice/thimbled.service\n"
                        "0::/system.slice/thimbled.service\n");
  const std::string base = "/sys/fs/cgroup/memory";
  machine.Write("/sys/fs/cgroup/unified/cgroup.controllers", "\n");
  machine.Write(base + "/memory.limit_in_bytes", kNoLimitV1);
  machine.Write(base + "/system.slice/memory.limit_in_bytes", kNoLimitV1);
  machine.Write(base + "/system.slice/thimbled.service/memory.limit_in_bytes", "33554432\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->version, 1);
  EXPECT_EQ(group->directory, machine.root() + base + "/system.slice/thimbled.service");
  EXPECT_EQ(group->limit_bytes, 32 * kMiB);
}

TEST(FindMemoryGroup, OnAV2HostTakesTheStrictestOnTheWayUp) {
  const Machine machine(kV2Mounts, "0::/user.slice/user-1000.slice/thimble.scope\n");
  const std::string base = "/sys/fs/cgroup";
  machine.Write(base + "/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n");
  machine.Write(base + "/user.slice/cgroup.controllers", "cpu memory pids\n");
  machine.Write(base + "/user.slice/memory.max", "max\n");
  machine.Write(base + "/user.slice/memory.high", "max\n");
  machine.Write(base + "/user.slice/user-1000.slice/cgroup.controllers", "memory pids\n");
  machine.Write(base + "/user.slice/user-1000.slice/memory.max", "50331648\n");
  const std::string own = base + "/user.slice/user-1000.slice/thimble.scope";
  machine.Write(own + "/cgroup.controllers", "memory pids\n");
  machine.Write(own + "/memory.max", "67108864\n");
  machine.Write(own + "/memory.high", "max\n");
  Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->version, 2);
  EXPECT_TRUE(group->is_own);
  EXPECT_EQ(group->directory, machine.root() + own);
  EXPECT_EQ(group->limit_bytes, 48 * kMiB);

  machine.Write(own + "/memory.high", "41943040\n");
  group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok());
  EXPECT_EQ(group->limit_bytes, 40 * kMiB);
  EXPECT_EQ(group->limit_file, machine.root() + own + "/memory.high");
}

TEST(FindMemoryGroup, OnV2TheNearestAncestorWithTheControllerIsTheOneCharged) {
  const Machine machine(kV2Mounts, "0::/system.slice/ssh.service/inner\n");
  const std::string base = "/sys/fs/cgroup";
  machine.Write(base + "/cgroup.controllers", "cpu memory\n");
  machine.Write(base + "/system.slice/cgroup.controllers", "memory\n");
  machine.Write(base + "/system.slice/memory.max", "max\n");
  machine.Write(base + "/system.slice/ssh.service/cgroup.controllers", "\n");
  machine.Write(base + "/system.slice/ssh.service/inner/cgroup.controllers", "\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->directory, machine.root() + base + "/system.slice");
  EXPECT_FALSE(group->is_own);
  EXPECT_EQ(group->limit_bytes, UINT64_MAX);
  EXPECT_EQ(group->limit_file, "");
}

TEST(FindMemoryGroup, InDockerOnV1StripsTheRootOfTheMount) {
  const std::string id = "/docker/4f2e8c0d9a7b";
  const Machine machine(
      "1423 1410 0:149 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n"
      "1427 1423 0:32 " +
          id +
          " /sys/fs/cgroup/cpu,cpuacct ro master:15 - cgroup cgroup "
          "rw,cpu,cpuacct\n"
          "1433 1423 0:35 " +
          id +
          " /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:18 - "
          "cgroup cgroup rw,memory\n",
      "12:memory:" + id + "\n4:cpu,cpuacct:" + id + "\n0::/system.slice/containerd.service\n");
  machine.Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
  machine.Write("/sys/fs/cgroup/memory/memory.stat",
                "cache 4096\nhierarchical_memory_limit 67108864\ntotal_cache 4096\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->directory, machine.root() + "/sys/fs/cgroup/memory");
  EXPECT_EQ(group->limit_bytes, 64 * kMiB);
}

TEST(FindMemoryGroup, InKubernetesOnV1SeesThePodsLimitInMemoryStat) {
  const std::string pod = "/kubepods/burstable/pod3f1c/5dd0";
  const Machine machine(
      "2133 2120 0:33 " + pod + " /sys/fs/cgroup/memory ro master:17 - cgroup cgroup rw,memory\n",
      "9:memory:" + pod + "\n");
  machine.Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", kNoLimitV1);
  machine.Write("/sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 100663296\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->limit_bytes, 96 * kMiB);
  EXPECT_EQ(group->limit_file, machine.root() + "/sys/fs/cgroup/memory/memory.stat");
}

TEST(FindMemoryGroup, InDockerOnV2WithAPrivateNamespace) {
  const Machine machine(
      "612 611 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n",
      "0::/\n");
  machine.Write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
  machine.Write("/sys/fs/cgroup/memory.max", "67108864\n");
  machine.Write("/sys/fs/cgroup/memory.high", "max\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->directory, machine.root() + "/sys/fs/cgroup");
  EXPECT_TRUE(group->is_own);
  EXPECT_EQ(group->limit_bytes, 64 * kMiB);
}

TEST(FindMemoryGroup, InPodmanOnV2WithTheHostsNamespace) {
  const std::string scope = "/machine.slice/libpod-77ab.scope/container";
  const Machine machine("700 690 0:29 " + scope + " /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
                        "0::" + scope + "\n");
  machine.Write("/sys/fs/cgroup/cgroup.controllers", "memory pids\n");
  machine.Write("/sys/fs/cgroup/memory.max", "25165824\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->directory, machine.root() + "/sys/fs/cgroup");
  EXPECT_EQ(group->limit_bytes, 24 * kMiB);
}

TEST(FindMemoryGroup, PathsOutOfTheNamespaceAreTheMountPoint) {
  const Machine machine(kV2Mounts, "0::/../sibling\n");
  machine.Write("/sys/fs/cgroup/cgroup.controllers", "memory\n");
  machine.Write("/sys/fs/sibling/cgroup.controllers", "memory\n");
  machine.Write("/sys/fs/sibling/memory.max", "1\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->directory, machine.root() + "/sys/fs/cgroup");
}

TEST(FindMemoryGroup, InNspawnOnV1TheDirectoryMayBeMissing) {
  // nspawn mounts the whole hierarchy, and the path in cgroup is the payload's.
  const Machine machine(kHybridMounts, "4:memory:/machine.slice/machine-pi.scope/payload\n");
  machine.Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "50331648\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->directory, machine.root() + "/sys/fs/cgroup/memory");
  EXPECT_EQ(group->limit_bytes, 48 * kMiB);
}

TEST(FindMemoryGroup, MountPointsMayHaveSpaces) {
  const Machine machine("35 31 0:32 / /mnt/my\\040groups rw - cgroup none rw,memory\n",
                        "4:memory:/\n");
  machine.Write("/mnt/my groups/memory.limit_in_bytes", "20971520\n");
  const Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->limit_bytes, 20 * kMiB);
}

TEST(FindMemoryGroup, SaysHowToSwitchTheControllerOnWhereItIsOff) {
  const Machine machine(kV2Mounts, "0::/\n");
  machine.Write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
  machine.Write("/proc/cgroups",
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
                "cpu\t0\t60\t1\nmemory\t0\t79\t0\n");
  Result<MemoryGroup> group = FindMemoryGroup(machine.paths());
  ASSERT_FALSE(group.ok());
  EXPECT_EQ(group.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(group.status().message(), HasSubstr("enabled=0"));
  EXPECT_THAT(group.status().message(),
              HasSubstr("add cgroup_enable=memory cgroup_memory=1 to cmdline.txt and reboot"));

  machine.Write("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t60\t1\n");
  group = FindMemoryGroup(machine.paths());
  ASSERT_FALSE(group.ok());
  EXPECT_THAT(group.status().message(), HasSubstr("cmdline.txt"));

  machine.Write("/proc/cgroups",
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t1\n");
  group = FindMemoryGroup(machine.paths());
  ASSERT_FALSE(group.ok());
  EXPECT_THAT(group.status().message(), HasSubstr("not mounted"));
}

TEST(FindMemoryGroup, WithoutAnyCgroupsIsNotFound) {
  const Machine machine("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n", "");
  EXPECT_EQ(FindMemoryGroup(machine.paths()).status().code(), StatusCode::kNotFound);
}

TEST(ParseMountinfo, LeavesOutWhatIsDamaged) {
  EXPECT_TRUE(ParseMountinfo("").empty());
  EXPECT_TRUE(ParseMountinfo("\n\n - cgroup2\n35 31 - cgroup2 x rw\n35 31 0:32 / /m rw").empty());
  EXPECT_TRUE(ParseMountinfo("1 2 0:3 / /m rw - cgroup memory rw,memory2\n").empty());
  EXPECT_EQ(ParseMountinfo("1 2 0:3 / /m rw - cgroup2 none rw").size(), 1U);
}

TEST(ParseCgroupPath, FindsTheControllerAmongOthers) {
  EXPECT_EQ(ParseCgroupPath("3:cpu,memory,io:/a:b\n0::/c\n", 1), "/a:b");
  EXPECT_EQ(ParseCgroupPath("3:cpu,memory,io:/a:b\n0::/c\n", 2), "/c");
  EXPECT_EQ(ParseCgroupPath("3:memory2:/a\n1:name=memory:/b\n", 1), std::nullopt);
  EXPECT_EQ(ParseCgroupPath("", 2), std::nullopt);
}

TEST(ParseLimit, KnowsEveryKernelsUnlimited) {
  for (const char* text : {"max\n", "9223372036854771712\n", "9223372036854710272\n",
                           "9223372036854775807\n", "8796093018112\n", "18446744073709551615"}) {
    EXPECT_EQ(ParseLimit(text), UINT64_MAX) << text;
  }
  EXPECT_EQ(ParseLimit("16777216\n"), 16 * kMiB);
  EXPECT_EQ(ParseLimit("0\n"), 0U);
  for (const char* text : {"", "\n", "maximum\n", "-1\n", "12x\n", "99999999999999999999999\n"}) {
    EXPECT_EQ(ParseLimit(text), std::nullopt) << text;
  }
}

TEST(KernelCgroupFs, KeptFileTellsWhatIsThereNow) {
  const Machine machine("", "");
  const std::string path = machine.root() + "/g/memory.current";
  const std::unique_ptr<CgroupFile> kept = KernelCgroupFs().Keep(path);
  EXPECT_EQ(kept->Read().status().code(), StatusCode::kNotFound);
  machine.Write("/g/memory.current", "13365248\n");
  ASSERT_TRUE(kept->Read().ok());
  EXPECT_EQ(*kept->Read(), "13365248\n");
  machine.Write("/g/memory.current", "4096\n");
  EXPECT_EQ(*kept->Read(), "4096\n");
  machine.Write("/g/other", "8192\n");
  std::filesystem::rename(machine.root() + "/g/other", path);
  EXPECT_EQ(*kept->Read(), "4096\n") << "not opened again";
}

TEST(KernelCgroupFs, KeptFileThatCannotBeReadIsOpenedAgain) {
  const Machine machine("", "");
  const std::string path = machine.root() + "/g/memory.current";
  std::filesystem::create_directories(path);
  const std::unique_ptr<CgroupFile> kept = KernelCgroupFs().Keep(path);
  EXPECT_FALSE(kept->Read().ok()) << "a directory";
  std::filesystem::remove(path);
  machine.Write("/g/memory.current", "4096\n");
  ASSERT_TRUE(kept->Read().ok());
  EXPECT_EQ(*kept->Read(), "4096\n");
}

TEST(ReadGroupUsage, ReadsV1) {
  const Machine machine("", "");
  machine.Write("/g/memory.usage_in_bytes", "13365248\n");
  machine.Write("/g/memory.max_usage_in_bytes", "16777216\n");
  machine.Write("/g/memory.failcnt", "2\n");
  machine.Write("/g/memory.memsw.failcnt", "40\n");
  machine.Write("/g/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
  machine.Write("/g/memory.stat", "cache 1\nrss 2\ntotal_cache 9437184\ntotal_rss 2097152\n");
  const Result<CeilingUsage> usage = ReadGroupUsage(KernelCgroupFs(), 1, machine.root() + "/g");
  ASSERT_TRUE(usage.ok()) << usage.status().ToString();
  EXPECT_EQ(usage->current, 13365248U);
  EXPECT_EQ(usage->peak, 16777216U);
  EXPECT_EQ(usage->failures, 42U);
  EXPECT_EQ(usage->oom_kills, 3U);
  EXPECT_EQ(usage->page_cache, 9437184U);
  EXPECT_EQ(usage->anonymous, 2097152U);
}

TEST(ReadGroupUsage, ReadsV2AndDoesWithoutMemoryPeak) {
  const Machine machine("", "");
  machine.Write("/g/memory.current", "13365248\n");
  machine.Write("/g/memory.events", "low 0\nhigh 7\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n");
  machine.Write("/g/memory.stat", "anon 2097152\nfile 9437184\nkernel 163840\n");
  const Result<CeilingUsage> usage = ReadGroupUsage(KernelCgroupFs(), 2, machine.root() + "/g");
  ASSERT_TRUE(usage.ok()) << usage.status().ToString();
  EXPECT_EQ(usage->current, 13365248U);
  EXPECT_EQ(usage->peak, 0U);
  EXPECT_EQ(usage->failures, 5U);
  EXPECT_EQ(usage->oom_kills, 1U);
  EXPECT_EQ(usage->page_cache, 9437184U);
  EXPECT_EQ(usage->anonymous, 2097152U);
  EXPECT_EQ(ReadGroupUsage(KernelCgroupFs(), 2, machine.root() + "/none").status().code(),
            StatusCode::kNotFound);
}

TEST(ReadProcessUsage, IsPlausible) {
  const Result<CeilingUsage> usage = ReadProcessUsage();
  ASSERT_TRUE(usage.ok()) << usage.status().ToString();
  EXPECT_GT(usage->anonymous, 0U);
  EXPECT_GE(usage->current, usage->anonymous);
  EXPECT_GE(usage->peak, usage->anonymous);
  EXPECT_EQ(ParseProcessStatus("VmPeak:\t  12 kB\nVmRSS:\t     340 kB\n", "VmRSS"), 340 * kKiB);
  EXPECT_EQ(ParseProcessStatus("VmPeak:\t  12 kB\n", "VmRSS"), std::nullopt);
}

}  // namespace
}  // namespace thimble
