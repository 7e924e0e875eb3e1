// What the weight reader does where the kernel refuses one of its ways.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "storage/base/bytes.h"
#include "storage/weight_reader.h"
#include "storage/weight_reader_backends.h"
#include "tests/storage/reader_test_util.h"

namespace thimble {
namespace {

using testing::HasSubstr;

// Runs `body` in a child process with `denied` system calls answered by EPERM; returns what it
// wrote.
std::string WithDenied(const std::vector<long>& denied, const std::function<std::string()>& body) {
  std::array<int, 2> pipe_fds{};
  EXPECT_EQ(::pipe(pipe_fds.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<sock_filter> filter;
    filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    for (const long call : denied) {
      filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
      filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    }
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    std::string text = "no seccomp";
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) {
      text = body();
    }
    const bool written =
        ::write(pipe_fds[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::_exit(written ? 0 : 1);
  }
  ::close(pipe_fds[1]);
  std::string text;
  std::array<char, 512> block{};
  ssize_t n = 0;
  while ((n = ::read(pipe_fds[0], block.data(), block.size())) > 0) {
    text.append(block.data(), static_cast<size_t>(n));
  }
  ::close(pipe_fds[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  return text;
}

// "BACKEND; refusal; refusal", after reading a span through it.
std::string OpenAndRead(RandomAccessFile& file) {
  Result<std::unique_ptr<WeightReader>> reader = WeightReader::Open(file, ReaderBackend::kAuto, {});
  if (!reader.ok()) return reader.status().ToString();
  const Buffer buffer(128 * kKiB);
  const Result<uint32_t> ticket = (*reader)->Start(1000, 100'000, buffer.data());
  if (!ticket.ok()) return ticket.status().ToString();
  if (const Status status = (*reader)->Wait(*ticket); !status.ok()) return status.ToString();
  if (!HasBytes(buffer.data() + 1000, 1000, 100'000)) return "wrong bytes";
  std::string text(ReaderBackendName((*reader)->backend()));
  for (const std::string& refusal : (*reader)->refusals()) text += "; " + refusal;
  return text;
}

// The fall-backs below are only to be seen on a file system with O_DIRECT.
bool HasODirect(RandomAccessFile& file) {
  return WeightReader::Open(file, ReaderBackend::kDirectPread, {}).ok();
}

TEST(WeightReader, FallsBackToAioWhereSeccompRefusesIoUring) {
  const DiskFile disk(kMiB);
  if (!HasODirect(disk.file())) GTEST_SKIP() << "no O_DIRECT here";
  EXPECT_EQ(WithDenied({SYS_io_uring_setup}, [&] { return OpenAndRead(disk.file()); }),
            "aio; io_uring: io_uring_setup: Operation not permitted");
}

TEST(WeightReader, FallsBackToAioWhereOnlySubmittingIsRefused) {
  const DiskFile disk(kMiB);
  if (!HasODirect(disk.file())) GTEST_SKIP() << "no O_DIRECT here";
  const std::string text =
      WithDenied({SYS_io_uring_enter}, [&] { return OpenAndRead(disk.file()); });
  EXPECT_THAT(text, testing::StartsWith("aio; io_uring: read "));
  EXPECT_THAT(text, HasSubstr("Operation not permitted"));
}

TEST(WeightReader, FallsBackToPreadWhereSeccompRefusesAioToo) {
  const DiskFile disk(kMiB);
  if (!HasODirect(disk.file())) GTEST_SKIP() << "no O_DIRECT here";
  EXPECT_EQ(
      WithDenied({SYS_io_uring_setup, SYS_io_setup}, [&] { return OpenAndRead(disk.file()); }),
      "direct; io_uring: io_uring_setup: Operation not permitted; "
      "aio: io_setup: Operation not permitted");
}

TEST(WeightReader, ReadsBufferedWhereTheFileSystemHasNoODirect) {
  // A file of procfs: regular, of size 0, without O_DIRECT; so are FUSE and some network mounts.
  Result<std::unique_ptr<RandomAccessFile>> file = OpenFile("/proc/self/maps");
  ASSERT_TRUE(file.ok());
  Result<std::unique_ptr<WeightReader>> reader =
      WeightReader::Open(**file, ReaderBackend::kAuto, {});
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();
  EXPECT_EQ((*reader)->backend(), ReaderBackend::kBufferedPread);
  EXPECT_THAT((*reader)->refusals(), testing::ElementsAre("io_uring: O_DIRECT: Invalid argument",
                                                          "aio: O_DIRECT: Invalid argument",
                                                          "direct: O_DIRECT: Invalid argument"));
}

TEST(WeightReader, ReadsWithoutRegisteredBuffersWhereMemoryMayNotBeLocked) {
  const DiskFile disk(kMiB);
  const Buffer arena(kMiB);
  const std::string text = WithDenied({SYS_io_uring_register}, [&]() -> std::string {
    Result<std::unique_ptr<WeightReader>> reader =
        WeightReader::Open(disk.file(), ReaderBackend::kIoUring, arena.span());
    if (!reader.ok()) return "skip: " + reader.status().ToString();
    const Result<uint32_t> ticket = (*reader)->Start(1000, 500'000, arena.data());
    if (!ticket.ok()) return ticket.status().ToString();
    if (const Status status = (*reader)->Wait(*ticket); !status.ok()) return status.ToString();
    if (!HasBytes(arena.data() + 1000, 1000, 500'000)) return "wrong bytes";
    return (*reader)->refusals().empty() ? "registered" : (*reader)->refusals()[0];
  });
  if (text.starts_with("skip")) GTEST_SKIP() << text;
  EXPECT_THAT(text, HasSubstr("io_uring: buffers not registered: Operation not permitted (arena "
                              "1.0 MiB, RLIMIT_MEMLOCK"));
}

}  // namespace
}  // namespace thimble
