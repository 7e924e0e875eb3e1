#include "storage/weight_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
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
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "storage/base/bytes.h"
#include "storage/weight_reader_backends.h"

namespace thimble {
namespace {

using testing::HasSubstr;

// A byte that depends on all of its offset.
std::byte ByteAt(uint64_t offset) {
  return static_cast<std::byte>((offset * 0x9E3779B97F4A7C15ULL) >> 56);
}

// Page-aligned memory, filled so that a read that brings nothing is seen.
class Buffer {
 public:
  explicit Buffer(size_t bytes)
      : bytes_(AlignUp(bytes, kReadAlignment)),
        data_(static_cast<std::byte*>(std::aligned_alloc(kReadAlignment, bytes_))) {
    std::memset(data_, 0xA5, bytes_);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  size_t bytes_;
  std::byte* data_;
};

// A file in $TMPDIR or /var/tmp, gone at the end. (/tmp is often a tmpfs, which has no O_DIRECT
// before Linux 6.6.)
class DiskFile {
 public:
  explicit DiskFile(uint64_t bytes) {
    const char* directory = std::getenv("TMPDIR");
    std::string name =
        std::string(directory != nullptr ? directory : "/var/tmp") + "/thimble_XXXXXX";
    fd_ = ::mkstemp(name.data());
    path_ = name;
    EXPECT_GE(fd_, 0) << path_;
    std::vector<std::byte> block(kMiB);
    for (uint64_t offset = 0; offset < bytes; offset += block.size()) {
      const uint64_t n = std::min<uint64_t>(block.size(), bytes - offset);
      for (uint64_t i = 0; i < n; ++i) block[i] = ByteAt(offset + i);
      EXPECT_EQ(::write(fd_, block.data(), n), static_cast<ssize_t>(n));
    }
    EXPECT_EQ(::fsync(fd_), 0);
    DropCache();
    Result<std::unique_ptr<RandomAccessFile>> file = OpenFile(path_);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    file_ = std::move(file).value();
  }
  ~DiskFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;

  void DropCache() const { ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED); }
  void Truncate(uint64_t bytes) const {
    ASSERT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0);
    ASSERT_EQ(::fsync(fd_), 0);
  }
  [[nodiscard]] RandomAccessFile& file() const { return *file_; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
  std::string path_;
  std::unique_ptr<RandomAccessFile> file_;
};

bool HasBytes(const std::byte* data, uint64_t offset, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; ++i) {
    if (data[i] != ByteAt(offset + i)) return false;
  }
  return true;
}

class EveryBackend : public testing::TestWithParam<ReaderBackend> {
 protected:
  // The backend, or null and the test skipped where this machine refuses it.
  std::unique_ptr<WeightReader> Open(RandomAccessFile& file, std::span<std::byte> arena = {}) {
    Result<std::unique_ptr<WeightReader>> reader = WeightReader::Open(file, GetParam(), arena);
    if (!reader.ok()) {
      refusal_ = reader.status().ToString();
      return nullptr;
    }
    EXPECT_EQ((*reader)->backend(), GetParam());
    return std::move(reader).value();
  }
  [[nodiscard]] uint64_t ReadBytes(uint64_t offset, uint64_t bytes) const {
    return GetParam() == ReaderBackend::kBufferedPread ? bytes : ReadBufferBytes(offset, bytes);
  }
  std::string refusal_;
};

#define OPEN_OR_SKIP(reader, ...)        \
  const auto reader = Open(__VA_ARGS__); \
  if (reader == nullptr) GTEST_SKIP() << refusal_

INSTANTIATE_TEST_SUITE_P(WeightReader, EveryBackend,
                         testing::Values(ReaderBackend::kIoUring, ReaderBackend::kLinuxAio,
                                         ReaderBackend::kDirectPread,
                                         ReaderBackend::kBufferedPread),
                         [](const auto& test) {
                           return std::string(ReaderBackendName(test.param));
                         });

TEST_P(EveryBackend, ReadsRandomSpansAsTheyAreInTheFile) {
  constexpr uint64_t kBytes = 5 * kMiB + 777;
  const DiskFile disk(kBytes);
  OPEN_OR_SKIP(reader, disk.file());
  std::mt19937_64 random(7);
  const Buffer buffer(kMiB + 2 * kReadAlignment);
  uint64_t expected_bytes = 0;
  for (int i = 0; i < 200; ++i) {
    const uint64_t offset = random() % kBytes;
    const uint64_t bytes =
        1 + random() % std::min<uint64_t>(kBytes - offset, i % 3 == 0 ? kMiB : 9000);
    std::memset(buffer.data(), 0xA5, buffer.span().size());
    const Result<uint32_t> ticket = reader->Start(offset, bytes, buffer.data());
    ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
    const Status status = reader->Wait(*ticket);
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_TRUE(HasBytes(buffer.data() + offset % kReadAlignment, offset, bytes))
        << offset << " + " << bytes;
    const uint64_t begin = AlignDown(offset, kReadAlignment);
    expected_bytes += GetParam() == ReaderBackend::kBufferedPread
                          ? bytes
                          : std::min(begin + ReadBufferBytes(offset, bytes), kBytes) - begin;
  }
  EXPECT_EQ(reader->stats().bytes, expected_bytes);
  EXPECT_EQ(reader->stats().reads, 200U);
  EXPECT_GT(reader->stats().stall_ns, 0U);
}

TEST_P(EveryBackend, KeepsReadsUnderWayApartAndWaitsInAnyOrder) {
  const DiskFile disk(4 * kMiB);
  const Buffer arena(4 * 300 * kKiB);
  OPEN_OR_SKIP(reader, disk.file(), arena.span());
  std::mt19937_64 random(11);
  for (int round = 0; round < 30; ++round) {
    struct Read {
      uint64_t offset, bytes;
      std::byte* buffer;
      uint32_t ticket;
    };
    std::vector<Read> reads;
    for (unsigned i = 0; i < WeightReader::kMaxInFlight; ++i) {
      Read read{random() % (3 * kMiB), 1 + random() % (290 * kKiB), arena.data() + i * 300 * kKiB,
                0};
      const Result<uint32_t> ticket = reader->Start(read.offset, read.bytes, read.buffer);
      ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
      read.ticket = *ticket;
      reads.push_back(read);
    }
    const Buffer other(kReadAlignment);
    const Result<uint32_t> fifth = reader->Start(0, 1, other.data());
    ASSERT_FALSE(fifth.ok());
    EXPECT_EQ(fifth.status().code(), StatusCode::kResourceExhausted);
    std::shuffle(reads.begin(), reads.end(), random);
    for (const Read& read : reads) {
      const Status status = reader->Wait(read.ticket);
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(HasBytes(read.buffer + read.offset % kReadAlignment, read.offset, read.bytes));
      EXPECT_EQ(reader->Wait(read.ticket).code(), StatusCode::kInvalidArgument);
    }
  }
}

TEST_P(EveryBackend, SaysThatTheFileHasShrunkAndGoesOn) {
  const DiskFile disk(kMiB);
  OPEN_OR_SKIP(reader, disk.file());
  const Buffer buffer(kMiB);
  disk.Truncate(500'001);
  for (const uint64_t offset : {uint64_t{400'000}, uint64_t{499'999}, uint64_t{600'000}}) {
    const Result<uint32_t> ticket = reader->Start(offset, 200'000, buffer.data());
    ASSERT_TRUE(ticket.ok());
    const Status status = reader->Wait(*ticket);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("the file has shrunk"));
    EXPECT_THAT(status.message(), HasSubstr("200000 bytes"));
    EXPECT_THAT(status.message(), HasSubstr(disk.file().path()));
  }
  // Up to the last byte that is left.
  const Result<uint32_t> ticket = reader->Start(400'000, 100'001, buffer.data());
  ASSERT_TRUE(ticket.ok());
  const Status status = reader->Wait(*ticket);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(HasBytes(buffer.data() + 400'000 % kReadAlignment, 400'000, 100'001));
}

TEST_P(EveryBackend, ReportsWhatTheKernelRefusesAndGoesOn) {
  const DiskFile disk(kMiB);
  OPEN_OR_SKIP(reader, disk.file());
  // Memory that cannot be written is the error that any file system gives on demand.
  void* closed = ::mmap(nullptr, 64 * kKiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(closed, MAP_FAILED);
  const Result<uint32_t> ticket = reader->Start(8192, 64 * kKiB, static_cast<std::byte*>(closed));
  const Status status = ticket.ok() ? reader->Wait(*ticket) : ticket.status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
  EXPECT_THAT(status.message(), HasSubstr("Bad address"));
  EXPECT_THAT(status.message(), HasSubstr("at offset 0x2000, 65536 bytes"));
  ::munmap(closed, 64 * kKiB);
  const Buffer buffer(kReadAlignment);
  const Result<uint32_t> next = reader->Start(5, 10, buffer.data());
  ASSERT_TRUE(next.ok()) << next.status().ToString();
  EXPECT_TRUE(reader->Wait(*next).ok());
  EXPECT_TRUE(HasBytes(buffer.data() + 5, 5, 10));
}

TEST_P(EveryBackend, RefusesWhatIsNoSpan) {
  const DiskFile disk(kMiB);
  OPEN_OR_SKIP(reader, disk.file());
  const Buffer buffer(2 * kReadAlignment);
  for (const auto& [offset, bytes, shift] : {std::array<uint64_t, 3>{0, 0, 0},
                                             {INT64_MAX, 1, 0},
                                             {UINT64_MAX, UINT64_MAX, 0},
                                             {1, UINT64_MAX, 0},
                                             {0, 1, 512}}) {
    const Result<uint32_t> ticket = reader->Start(offset, bytes, buffer.data() + shift);
    ASSERT_FALSE(ticket.ok());
    EXPECT_EQ(ticket.status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(reader->Wait(0).code(), StatusCode::kInvalidArgument);
}

TEST_P(EveryBackend, MayBeClosedWithReadsUnderWay) {
  const DiskFile disk(4 * kMiB);
  const Buffer arena(4 * kMiB);
  OPEN_OR_SKIP(reader, disk.file(), arena.span());
  for (unsigned i = 0; i < WeightReader::kMaxInFlight; ++i) {
    ASSERT_TRUE(reader->Start(i * kMiB, kMiB, arena.data() + i * kMiB).ok());
  }
}

TEST_P(EveryBackend, LeavesNextToNothingInThePageCache) {
  constexpr uint64_t kBytes = 64 * kMiB;
  constexpr uint64_t kSpan = 256 * kKiB;
  const DiskFile disk(kBytes);
  OPEN_OR_SKIP(reader, disk.file());
  const std::array<Buffer, 2> buffers{Buffer(kSpan + kReadAlignment),
                                      Buffer(kSpan + kReadAlignment)};
  // Spans that share pages with their neighbours, one ahead, as the tile ring reads.
  constexpr uint64_t kStep = kSpan - 100;
  Result<uint32_t> ahead = reader->Start(0, kStep, buffers[0].data());
  for (uint64_t i = 0; i * kStep < kBytes - kStep; ++i) {
    ASSERT_TRUE(ahead.ok());
    const uint32_t ticket = *ahead;
    const uint64_t next = (i + 1) * kStep;
    ahead = reader->Start(next, std::min(kStep, kBytes - next), buffers[(i + 1) % 2].data());
    const Status status = reader->Wait(ticket);
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_TRUE(HasBytes(buffers[i % 2].data() + i * kStep % kReadAlignment, i * kStep, 64));
  }
  ASSERT_TRUE(reader->Wait(*ahead).ok());
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* map = ::mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, disk.fd(), 0);
  ASSERT_NE(map, MAP_FAILED);
  std::vector<unsigned char> resident(kBytes / page);
  ASSERT_EQ(::mincore(map, kBytes, resident.data()), 0);
  ::munmap(map, kBytes);
  const auto pages = static_cast<uint64_t>(
      std::count_if(resident.begin(), resident.end(), [](unsigned char c) { return c & 1U; }));
  RecordProperty("resident_bytes", std::to_string(pages * page));
  EXPECT_LE(pages * page, 2 * kMiB);
}

TEST(WeightReader, TakesIoUringFirst) {
  const DiskFile disk(kMiB);
  const Buffer arena(kMiB);
  Result<std::unique_ptr<WeightReader>> reader =
      WeightReader::Open(disk.file(), ReaderBackend::kAuto, arena.span());
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();
  if ((*reader)->backend() != ReaderBackend::kIoUring) GTEST_SKIP() << (*reader)->refusals()[0];
  EXPECT_EQ((*reader)->stats().bytes, 0U);  // the probe is not counted
  EXPECT_EQ((*reader)->stats().reads, 0U);
}

TEST(WeightReader, ReadsFilesWithoutADescriptorThroughReadAt) {
  std::vector<std::byte> bytes(100'000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = ByteAt(i);
  const auto file = MemoryFile(bytes, "in-memory");
  Result<std::unique_ptr<WeightReader>> opened =
      WeightReader::Open(*file, ReaderBackend::kAuto, {});
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  WeightReader& reader = **opened;
  EXPECT_EQ(reader.backend(), ReaderBackend::kBufferedPread);
  EXPECT_THAT(reader.refusals(), testing::ElementsAre("io_uring: the file has no descriptor",
                                                      "aio: the file has no descriptor",
                                                      "direct: the file has no descriptor"));
  const Buffer buffer(100'000 + kReadAlignment);
  Result<uint32_t> ticket = reader.Start(4097, 95'903, buffer.data());
  ASSERT_TRUE(ticket.ok());
  EXPECT_TRUE(reader.Wait(*ticket).ok());
  EXPECT_TRUE(HasBytes(buffer.data() + 1, 4097, 95'903));
  EXPECT_EQ(reader.stats().bytes, 95'903U);
  ticket = reader.Start(4097, 95'904, buffer.data());
  ASSERT_TRUE(ticket.ok());
  EXPECT_EQ(reader.Wait(*ticket).code(), StatusCode::kDataLoss);
}

// ReadAt fails once with `status`.
class FaultyFile final : public RandomAccessFile {
 public:
  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (!fault.ok()) return std::exchange(fault, Status{});
    for (size_t i = 0; i < out.size(); ++i) out[i] = ByteAt(offset + i);
    return {};
  }
  Result<FileIdentity> Identity() override { return FileIdentity{0, 0, kMiB, 0}; }
  [[nodiscard]] const std::string& path() const override { return path_; }
  Status fault;

 private:
  std::string path_ = "faulty.gguf";
};

TEST(WeightReader, PassesOnErrorsOfReadAt) {
  FaultyFile file;
  Result<std::unique_ptr<WeightReader>> reader =
      WeightReader::Open(file, ReaderBackend::kBufferedPread, {});
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();
  const Buffer buffer(kReadAlignment);
  file.fault = ErrnoError(EIO, "read faulty.gguf");
  Result<uint32_t> ticket = (*reader)->Start(16, 100, buffer.data());
  ASSERT_TRUE(ticket.ok());
  const Status status = (*reader)->Wait(*ticket);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("faulty.gguf at offset 0x10, 100 bytes"));
  EXPECT_THAT(status.message(), HasSubstr("Input/output error"));
  ticket = (*reader)->Start(16, 100, buffer.data());
  ASSERT_TRUE(ticket.ok());
  EXPECT_TRUE((*reader)->Wait(*ticket).ok());
}

TEST(WeightReader, ABackendThatFailsItsProbeIsRefused) {
  FaultyFile file;
  file.fault = ErrnoError(EIO, "read faulty.gguf");
  const Result<std::unique_ptr<WeightReader>> reader =
      WeightReader::Open(file, ReaderBackend::kAuto, {});
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(reader.status().message(), HasSubstr("Input/output error"));
  EXPECT_THAT(reader.status().message(), HasSubstr("io_uring: the file has no descriptor"));
}

TEST(WeightReader, ABackendAskedForByNameIsNotReplaced) {
  const auto file = MemoryFile(std::array<std::byte, 4>{});
  for (const ReaderBackend backend :
       {ReaderBackend::kIoUring, ReaderBackend::kLinuxAio, ReaderBackend::kDirectPread}) {
    const Result<std::unique_ptr<WeightReader>> reader = WeightReader::Open(*file, backend, {});
    ASSERT_FALSE(reader.ok());
    EXPECT_THAT(reader.status().message(), HasSubstr(std::string(ReaderBackendName(backend)) +
                                                     ": the file has no descriptor"));
  }
}

TEST(WeightReader, AnEmptyFileOpens) {
  const DiskFile disk(0);
  Result<std::unique_ptr<WeightReader>> reader =
      WeightReader::Open(disk.file(), ReaderBackend::kAuto, {});
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();
  const Buffer buffer(kReadAlignment);
  const Result<uint32_t> ticket = (*reader)->Start(0, 1, buffer.data());
  ASSERT_TRUE(ticket.ok());
  EXPECT_EQ((*reader)->Wait(*ticket).code(), StatusCode::kDataLoss);
}

TEST(WeightReader, NamesOfBackendsParseBack) {
  for (const char* name : {"auto", "io_uring", "aio", "direct", "buffered"}) {
    const Result<ReaderBackend> backend = ParseReaderBackend(name);
    ASSERT_TRUE(backend.ok()) << name;
    EXPECT_EQ(ReaderBackendName(*backend), name);
  }
  EXPECT_EQ(ParseReaderBackend("uring").status().code(), StatusCode::kInvalidArgument);
}

// What the kernel may answer to one operation, played back: bytes read, or an errno.
class ScriptedReader final : public SpanReader {
 public:
  ScriptedReader(RandomAccessFile& file, uint64_t alignment, std::deque<int64_t> script)
      : SpanReader(file, alignment), script_(std::move(script)) {}
  [[nodiscard]] ReaderBackend backend() const override { return ReaderBackend::kDirectPread; }
  std::vector<std::pair<uint64_t, uint64_t>> operations;  // offset, bytes
  bool released = false;

 protected:
  int Begin(unsigned /*slot*/, const Piece& piece) override {
    operations.emplace_back(piece.offset, piece.bytes);
    return 0;
  }
  Result<uint64_t> Finish(unsigned /*slot*/, const Piece& piece) override {
    const int64_t step = script_.front();
    script_.pop_front();
    if (step < 0) return UnavailableError(ErrnoText(static_cast<int>(-step)));
    for (int64_t i = 0; i < step; ++i) piece.memory[i] = ByteAt(piece.offset + i);
    return static_cast<uint64_t>(step);
  }
  void Release(uint64_t /*offset*/, uint64_t /*bytes*/) override { released = true; }

 private:
  std::deque<int64_t> script_;
};

TEST(SpanReader, ContinuesShortReadsFromAnAlignedPlace) {
  FaultyFile file;
  const Buffer buffer(5 * kReadAlignment);
  ScriptedReader reader(file, kReadAlignment, {4096, 5000, 904, 8192});
  const Result<uint32_t> ticket = reader.Start(100, 15'000, buffer.data());
  ASSERT_TRUE(ticket.ok());
  const Status status = reader.Wait(*ticket);
  // 4096 + 5000 = 9096 of 15100 came; the next operation begins at 8192 and brings 904 again:
  // nothing new.
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
  EXPECT_THAT(reader.operations, testing::ElementsAre(std::pair(0, 16384), std::pair(4096, 12288),
                                                      std::pair(8192, 8192)));
  EXPECT_TRUE(reader.released);

  ScriptedReader lucky(file, kReadAlignment, {4096, 5000, 8192});
  const Result<uint32_t> again = lucky.Start(100, 15'000, buffer.data());
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(lucky.Wait(*again).ok());
  EXPECT_TRUE(HasBytes(buffer.data() + 100, 100, 15'000));
  EXPECT_EQ(lucky.stats().reads, 3U);
  EXPECT_EQ(lucky.stats().bytes, 4096U + 5000 + 8192);
}

TEST(SpanReader, AnErrorAfterAShortReadEndsTheReadAndFreesItsPlace) {
  FaultyFile file;
  const Buffer buffer(5 * kReadAlignment);
  ScriptedReader reader(file, 1, {10, -EIO, 20});
  const Result<uint32_t> ticket = reader.Start(4100, 30, buffer.data());
  ASSERT_TRUE(ticket.ok());
  const Status status = reader.Wait(*ticket);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("Input/output error"));
  EXPECT_THAT(reader.operations, testing::ElementsAre(std::pair(4100, 30), std::pair(4110, 20)));
  const Result<uint32_t> next = reader.Start(4100, 20, buffer.data());
  ASSERT_TRUE(next.ok());
  EXPECT_NE(*next, *ticket);
  EXPECT_TRUE(reader.Wait(*next).ok());
  EXPECT_TRUE(HasBytes(buffer.data() + 4, 4100, 20));
}

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
