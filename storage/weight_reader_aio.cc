// The Linux AIO backend: O_DIRECT reads by io_submit, for kernels and containers that refuse
// io_uring (Docker's default seccomp profile allows these calls). Raw system calls: libaio would be
// a dependency for three of them. Memory: the kernel's event ring, two pages.
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "storage/weight_reader_backends.h"

namespace thimble {
namespace {

class AioReader final : public SpanReader {
 public:
  explicit AioReader(RandomAccessFile& file) : SpanReader(file, kReadAlignment) {}

  // io_destroy waits for what is under way, since the kernel writes into the caller's buffers.
  ~AioReader() override {
    if (context_ != 0) syscall(SYS_io_destroy, context_);
  }
  AioReader(const AioReader&) = delete;
  AioReader& operator=(const AioReader&) = delete;

  Status Open() {
    THIMBLE_RETURN_IF_ERROR(direct_.Open(file()));
    if (syscall(SYS_io_setup, kMaxInFlight, &context_) != 0) {
      context_ = 0;
      return UnavailableError("io_setup: " + ErrnoText(errno));
    }
    return {};
  }

  [[nodiscard]] ReaderBackend backend() const override { return ReaderBackend::kLinuxAio; }

  void Poll() override { static_cast<void>(Reap(/*at_least=*/0)); }

 protected:
  int Begin(unsigned slot, const Piece& piece) override {
    Operation& operation = operations_[slot];
    operation.control = {};
    operation.control.aio_data = slot;
    operation.control.aio_lio_opcode = IOCB_CMD_PREAD;
    operation.control.aio_fildes = static_cast<uint32_t>(direct_.fd());
    operation.control.aio_buf = reinterpret_cast<uintptr_t>(piece.memory);
    operation.control.aio_nbytes = piece.bytes;
    operation.control.aio_offset = static_cast<int64_t>(piece.offset);
    iocb* control = &operation.control;
    while (true) {
      const long n = syscall(SYS_io_submit, context_, 1L, &control);
      if (n == 1) break;
      if (n < 0 && errno == EINTR) continue;
      return n < 0 ? errno : EAGAIN;
    }
    operation.under_way = true;
    return 0;
  }

  Result<uint64_t> Finish(unsigned slot, const Piece& /*piece*/) override {
    while (operations_[slot].under_way) {
      if (const int error = Reap(/*at_least=*/1); error != 0 && error != EINTR) {
        return UnavailableError("io_getevents: " + ErrnoText(error));
      }
    }
    const int64_t result = operations_[slot].result;
    if (result < 0) return UnavailableError(ErrnoText(static_cast<int>(-result)));
    return static_cast<uint64_t>(result);
  }

  [[nodiscard]] bool UnderWay(unsigned slot) const override { return operations_[slot].under_way; }

 private:
  // Takes what has completed, waiting for `at_least` of it. 0 or an errno.
  int Reap(long at_least) {
    std::array<io_event, kMaxInFlight> events{};
    const long n = syscall(SYS_io_getevents, context_, at_least, static_cast<long>(events.size()),
                           events.data(), nullptr);
    for (long i = 0; i < n; ++i) {
      Operation& operation = operations_[events[static_cast<size_t>(i)].data];
      operation.under_way = false;
      operation.result = events[static_cast<size_t>(i)].res;
    }
    return n < 0 ? errno : 0;
  }

  struct Operation {
    iocb control{};
    bool under_way = false;
    int64_t result = 0;
  };

  DirectDescriptor direct_;
  aio_context_t context_ = 0;
  std::array<Operation, kMaxInFlight> operations_;
};

}  // namespace

Result<std::unique_ptr<WeightReader>> OpenAioReader(RandomAccessFile& file) {
  auto reader = std::make_unique<AioReader>(file);
  THIMBLE_RETURN_IF_ERROR(reader->Open());
  return std::unique_ptr<WeightReader>(std::move(reader));
}

}  // namespace thimble
