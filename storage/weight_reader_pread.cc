// The synchronous backends: pread past the page cache (no overlap), and, where O_DIRECT is refused,
// pread through it, with WILLNEED when a span is announced and DONTNEED when it has been used, so
// that the cache holds the spans under way and little else. Files without a descriptor (in memory,
// with injected faults) are read through ReadAt. Memory: none.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "storage/base/bytes.h"
#include "storage/weight_reader_backends.h"

namespace thimble {
namespace {

std::string DescriptorLink(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

Result<uint64_t> Pread(int fd, uint64_t offset, uint64_t bytes, std::byte* memory) {
  ssize_t n = 0;
  do {
    n = ::pread(fd, memory, bytes, static_cast<off_t>(offset));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return UnavailableError(ErrnoText(errno));
  return static_cast<uint64_t>(n);
}

class DirectReader final : public SpanReader {
 public:
  explicit DirectReader(RandomAccessFile& file) : SpanReader(file, kReadAlignment) {}
  Status Open() { return direct_.Open(file()); }
  [[nodiscard]] ReaderBackend backend() const override { return ReaderBackend::kDirectPread; }

 protected:
  int Begin(unsigned /*slot*/, const Piece& /*piece*/) override { return 0; }
  Result<uint64_t> Finish(unsigned /*slot*/, const Piece& piece) override {
    return Pread(direct_.fd(), piece.offset, piece.bytes, piece.memory);
  }

 private:
  DirectDescriptor direct_;
};

class BufferedReader final : public SpanReader {
 public:
  explicit BufferedReader(RandomAccessFile& file) : SpanReader(file, 1) {
    if (file.descriptor() < 0) return;
    // A description of our own: the advice below must not slow down the file's other readers.
    fd_ = ::open(DescriptorLink(file.descriptor()).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fd_ = ::fcntl(file.descriptor(), F_DUPFD_CLOEXEC, 0);
    // No read-ahead behind a span: what comes next is announced by Start.
    if (fd_ >= 0) (void)::posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM);
  }
  ~BufferedReader() override {
    if (fd_ >= 0) ::close(fd_);
  }
  BufferedReader(const BufferedReader&) = delete;
  BufferedReader& operator=(const BufferedReader&) = delete;

  [[nodiscard]] ReaderBackend backend() const override { return ReaderBackend::kBufferedPread; }

 protected:
  int Begin(unsigned /*slot*/, const Piece& piece) override {
    Advise(piece.offset, piece.bytes, POSIX_FADV_WILLNEED);
    return 0;
  }

  Result<uint64_t> Finish(unsigned /*slot*/, const Piece& piece) override {
    if (fd_ >= 0) return Pread(fd_, piece.offset, piece.bytes, piece.memory);
    const auto size = static_cast<size_t>(piece.bytes);
    const Status status = file().ReadAt(piece.offset, {piece.memory, size});
    if (status.ok()) return piece.bytes;
    // Past the end: as pread's 0. (How much there was before it, ReadAt does not say.)
    if (status.code() == StatusCode::kOutOfRange) return uint64_t{0};
    return status;
  }

  void Release(uint64_t offset, uint64_t bytes) override {
    Advise(offset, bytes, POSIX_FADV_DONTNEED);
  }

 private:
  // Advice is in whole pages and DONTNEED leaves partial ones, so outward; a neighbouring span that
  // shares a page reads it again. The kernel may refuse advice: it is only that.
  void Advise(uint64_t offset, uint64_t bytes, int advice) const {
    if (fd_ < 0) return;
    const uint64_t begin = AlignDown(offset, page_bytes_);
    const uint64_t end = AlignUp(offset + bytes, page_bytes_);
    (void)::posix_fadvise(fd_, static_cast<off_t>(begin), static_cast<off_t>(end - begin), advice);
  }

  const uint64_t page_bytes_ = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  int fd_ = -1;
};

}  // namespace

DirectDescriptor::~DirectDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Status DirectDescriptor::Open(const RandomAccessFile& file) {
  if (file.descriptor() < 0) return UnavailableError("the file has no descriptor");
  fd_ = ::open(DescriptorLink(file.descriptor()).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd_ < 0) return UnavailableError("O_DIRECT: " + ErrnoText(errno));
  return {};
}

Result<std::unique_ptr<WeightReader>> OpenDirectReader(RandomAccessFile& file) {
  auto reader = std::make_unique<DirectReader>(file);
  THIMBLE_RETURN_IF_ERROR(reader->Open());
  return std::unique_ptr<WeightReader>(std::move(reader));
}

Result<std::unique_ptr<WeightReader>> OpenBufferedReader(RandomAccessFile& file) {
  return std::unique_ptr<WeightReader>(std::make_unique<BufferedReader>(file));
}

}  // namespace thimble
