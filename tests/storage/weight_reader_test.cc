#include "storage/weight_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "storage/base/bytes.h"
#include "storage/weight_reader_backends.h"
#include "tests/storage/reader_test_util.h"

namespace thimble {
namespace {

using testing::HasSubstr;

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
  const Buffer arena(WeightReader::kMaxInFlight * 300 * kKiB);
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
    const Result<uint32_t> one_more = reader->Start(0, 1, other.data());
    ASSERT_FALSE(one_more.ok());
    EXPECT_EQ(one_more.status().code(), StatusCode::kResourceExhausted);
    std::shuffle(reads.begin(), reads.end(), random);
    for (const Read& read : reads) {
      const Status status = reader->Wait(read.ticket);
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(HasBytes(read.buffer + read.offset % kReadAlignment, read.offset, read.bytes));
      EXPECT_EQ(reader->Wait(read.ticket).code(), StatusCode::kInvalidArgument);
    }
  }
}

TEST_P(EveryBackend, ABatchArrivesWithoutBeingWaitedFor) {
  constexpr unsigned kReads = 8;
  const DiskFile disk(kReads * kMiB);
  const Buffer arena(kReads * kMiB);
  OPEN_OR_SKIP(reader, disk.file(), arena.span());
  for (int round = 0; round < 3; ++round) {
    std::array<uint32_t, kReads> tickets{};
    reader->BeginBatch();
    for (unsigned i = 0; i < kReads; ++i) {
      const Result<uint32_t> ticket = reader->Start(i * kMiB, kMiB, arena.data() + i * kMiB);
      ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
      tickets[i] = *ticket;
    }
    reader->EndBatch();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    const auto all_arrived = [&] {
      reader->Poll();
      return std::ranges::all_of(tickets, [&](uint32_t t) { return reader->Arrived(t); });
    };
    while (!all_arrived() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_TRUE(all_arrived());
    for (unsigned i = 0; i < kReads; ++i) {
      const Status status = reader->Wait(tickets[i]);
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(HasBytes(arena.data() + i * kMiB, i * kMiB, kMiB));
    }
  }
}

TEST_P(EveryBackend, AReadKeptBackByABatchIsHandedOverByWait) {
  const DiskFile disk(kMiB);
  const Buffer arena(kMiB);
  OPEN_OR_SKIP(reader, disk.file(), arena.span());
  reader->BeginBatch();
  const Result<uint32_t> ticket = reader->Start(0, kMiB, arena.data());
  ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
  EXPECT_TRUE(reader->Wait(*ticket).ok());
  reader->EndBatch();
  EXPECT_TRUE(HasBytes(arena.data(), 0, kMiB));
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
  const DiskFile disk(WeightReader::kMaxInFlight * kMiB);
  const Buffer arena(WeightReader::kMaxInFlight * kMiB);
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

}  // namespace
}  // namespace thimble
