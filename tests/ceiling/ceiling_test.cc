#include "daemon/ceiling/ceiling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "storage/base/bytes.h"
#include "tests/ceiling/fixture.h"

namespace thimble {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

// A container on v2: its group is mounted read-only, so to say: the files of new groups are
// missing.
class Container : public Machine {
 public:
  explicit Container(const std::string& limit)
      : Machine("612 611 0:29 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/\n") {
    Write("/sys/fs/cgroup/cgroup.controllers", "memory\n");
    Write("/sys/fs/cgroup/memory.max", limit + "\n");
    Write("/sys/fs/cgroup/memory.current", "5000000\n");
    Write("/sys/fs/cgroup/memory.peak", "6000000\n");
    Write("/sys/fs/cgroup/memory.stat", "anon 1000000\nfile 3000000\n");
    Write("/sys/fs/cgroup/memory.events", "max 3\noom_kill 0\n");
  }
  [[nodiscard]] std::string limit_file() const { return root() + "/sys/fs/cgroup/memory.max"; }
};

// A machine without the memory controller.
class BareMachine : public Machine {
 public:
  BareMachine() : Machine("27 1 254:0 / / rw - ext4 /dev/vda rw\n", "0::/\n") {}
};

TEST(Ceiling, AdoptsTheLimitInForceWhereNothingIsAskedFor) {
  const Container container("67108864");
  const auto ceiling = Ceiling::Establish(0, Enforcement::kCgroup, container.paths());
  ASSERT_TRUE(ceiling.ok()) << ceiling.status().ToString();
  EXPECT_EQ((*ceiling)->ceiling_bytes(), 64 * kMiB);
  EXPECT_EQ((*ceiling)->enforcement(), Enforcement::kCgroup);
  EXPECT_FALSE((*ceiling)->own_group());
  EXPECT_EQ((*ceiling)->directory(), container.root() + "/sys/fs/cgroup");
  EXPECT_THAT((*ceiling)->notes(), testing::ElementsAre("adopted the limit in force, 64.0 MiB in " +
                                                        container.limit_file()));
  const Result<CeilingUsage> usage = (*ceiling)->Usage();
  ASSERT_TRUE(usage.ok());
  EXPECT_EQ(usage->current, 5'000'000U);
  EXPECT_EQ(usage->peak, 6'000'000U);
  EXPECT_EQ(usage->failures, 3U);
}

TEST(Ceiling, AdoptsAStricterLimitThanAskedForAndSaysSo) {
  const Container container("67108864");
  for (const Enforcement enforcement : {Enforcement::kCgroup, Enforcement::kNone}) {
    const auto ceiling = Ceiling::Establish(128 * kMiB, enforcement, container.paths());
    ASSERT_TRUE(ceiling.ok()) << ceiling.status().ToString();
    EXPECT_EQ((*ceiling)->ceiling_bytes(), 64 * kMiB);
    EXPECT_THAT((*ceiling)->notes(),
                Contains(HasSubstr("which is stricter than --ram-ceiling 128.0 MiB")));
  }
  const auto equal = Ceiling::Establish(64 * kMiB, Enforcement::kCgroup, container.paths());
  ASSERT_TRUE(equal.ok());
  EXPECT_EQ((*equal)->ceiling_bytes(), 64 * kMiB);
  EXPECT_THAT((*equal)->notes(), testing::Not(Contains(HasSubstr("stricter"))));
}

TEST(Ceiling, RefusesToPromiseLessThanTheKernelWillHoldItTo) {
  const Container container("67108864");
  const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup, container.paths());
  ASSERT_FALSE(ceiling.ok());
  EXPECT_EQ(ceiling.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(ceiling.status().message(),
              AllOf(HasSubstr("--ram-ceiling 32.0 MiB"), HasSubstr("in force is 64.0 MiB"),
                    HasSubstr("Delegate=memory"), HasSubstr("--enforcement=process"),
                    HasSubstr("cgroup.procs: No such file or directory")));
  EXPECT_FALSE(std::filesystem::exists(container.root() + "/sys/fs/cgroup/thimble-" +
                                       std::to_string(::getpid())));
}

TEST(Ceiling, WithNeitherALimitNorANumberRefusesToStart) {
  const Container container("max");
  for (const Enforcement enforcement : {Enforcement::kCgroup, Enforcement::kProcess}) {
    const auto ceiling = Ceiling::Establish(0, enforcement, container.paths());
    ASSERT_FALSE(ceiling.ok());
    EXPECT_EQ(ceiling.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(ceiling.status().message(),
                AllOf(HasSubstr("--ram-ceiling"), HasSubstr("--enforcement=none")));
  }
}

TEST(Ceiling, WithoutALimitAndWithoutAWritableGroupNamesTheWaysOut) {
  const Container container("max");
  const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup, container.paths());
  ASSERT_FALSE(ceiling.ok());
  EXPECT_EQ(ceiling.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(ceiling.status().message(),
              AllOf(HasSubstr("no limit is in force"), HasSubstr("--enforcement=process")));
}

TEST(Ceiling, WithoutAControllerSaysWhyAndNamesTheWeakerWay) {
  const BareMachine machine;
  machine.Write("/proc/cgroups", "memory\t0\t79\t0\n");
  const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kCgroup, machine.paths());
  ASSERT_FALSE(ceiling.ok());
  EXPECT_EQ(ceiling.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(ceiling.status().message(),
              AllOf(HasSubstr("cmdline.txt"), HasSubstr("--enforcement=process")));
}

TEST(Ceiling, NoneTakesTheNumberOrNothing) {
  const BareMachine machine;
  auto ceiling = Ceiling::Establish(0, Enforcement::kNone, machine.paths());
  ASSERT_TRUE(ceiling.ok());
  EXPECT_EQ((*ceiling)->ceiling_bytes(), UINT64_MAX);
  EXPECT_EQ((*ceiling)->directory(), "");
  EXPECT_THAT((*ceiling)->notes(), testing::ElementsAre("no ceiling: nothing is enforced"));
  ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kNone, machine.paths());
  ASSERT_TRUE(ceiling.ok());
  EXPECT_EQ((*ceiling)->ceiling_bytes(), 32 * kMiB);
  const Result<CeilingUsage> usage = (*ceiling)->Usage();
  ASSERT_TRUE(usage.ok());
  EXPECT_GT(usage->current, 0U);
  // A limit in force sizes the budget in this mode, too.
  const Container container("67108864");
  ceiling = Ceiling::Establish(0, Enforcement::kNone, container.paths());
  ASSERT_TRUE(ceiling.ok());
  EXPECT_EQ((*ceiling)->ceiling_bytes(), 64 * kMiB);
}

// The exit code of `body` in a child of its own.
template <typename Body>
int InChild(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

TEST(Ceiling, ProcessLimitsWritableMemory) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer's shadow memory is itself over any RLIMIT_DATA";
#endif
  const BareMachine machine;
  EXPECT_EQ(
      InChild([&] {
        const auto ceiling = Ceiling::Establish(32 * kMiB, Enforcement::kProcess, machine.paths());
        if (!ceiling.ok() || (*ceiling)->ceiling_bytes() != 32 * kMiB) return 1;
        if ((*ceiling)->notes().back().find("weaker") == std::string::npos) return 2;
        const auto map = [](size_t bytes) {
          return ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        };
        if (map(16 * kMiB) == MAP_FAILED) return 3;
        if (map(32 * kMiB) != MAP_FAILED || errno != ENOMEM) return 4;
        rlimit limit{};
        ::getrlimit(RLIMIT_DATA, &limit);
        return limit.rlim_max == 32 * kMiB ? 0 : 5;
      }),
      0);
}

TEST(Ceiling, ProcessRefusesALimitThatIsBrokenAlready) {
  const BareMachine machine;
  EXPECT_EQ(InChild([&] {
              const auto ceiling = Ceiling::Establish(4096, Enforcement::kProcess, machine.paths());
              if (ceiling.ok()) return 1;
              if (ceiling.status().code() != StatusCode::kFailedPrecondition) return 2;
              return ceiling.status().message().find("VmData") != std::string::npos ? 0 : 3;
            }),
            0);
}

TEST(Enforcement, NamesParseBack) {
  for (const char* name : {"cgroup", "process", "none"}) {
    const Result<Enforcement> enforcement = ParseEnforcement(name);
    ASSERT_TRUE(enforcement.ok()) << name;
    EXPECT_EQ(EnforcementName(*enforcement), name);
  }
  EXPECT_EQ(ParseEnforcement("strict").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thimble
