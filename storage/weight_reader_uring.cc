// The io_uring backend: O_DIRECT reads submitted at Start, reaped at Wait, into registered buffers
// where the kernel lets us pin the arena. Memory: the rings, about 20 KiB, in the kernel.
#include <liburing.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "storage/base/bytes.h"
#include "storage/weight_reader_backends.h"

namespace thimble {
namespace {

constexpr unsigned kQueueDepth = 2 * WeightReader::kMaxInFlight;  // and room
constexpr uint64_t kMaxRegisteredBytes = kGiB;  // the kernel's limit for one buffer

// Submitting again later is enough: a signal came, or the kernel was short of a request.
bool IsTransient(int result) { return result == -EINTR || result == -EAGAIN || result == -EBUSY; }

class UringReader final : public SpanReader {
 public:
  explicit UringReader(RandomAccessFile& file) : SpanReader(file, kReadAlignment) {}

  // Waits for what is under way, since the kernel writes into the caller's buffers.
  ~UringReader() override {
    if (!ring_open_) return;
    for (unsigned slot = 0; slot < kMaxInFlight; ++slot) {
      if (operations_[slot].under_way) (void)Await(slot);
    }
    io_uring_queue_exit(&ring_);
  }
  UringReader(const UringReader&) = delete;
  UringReader& operator=(const UringReader&) = delete;

  Status Open(std::span<std::byte> arena) {
    THIMBLE_RETURN_IF_ERROR(direct_.Open(file()));
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |  // Linux 6.0, 5.19,
                   IORING_SETUP_TASKRUN_FLAG;                                // 5.19
    int result = io_uring_queue_init_params(kQueueDepth, &ring_, &params);
    if (result == -EINVAL) {
      params = {};
      result = io_uring_queue_init_params(kQueueDepth, &ring_, &params);
    }
    if (result < 0) return UnavailableError("io_uring_setup: " + ErrnoText(-result));
    ring_open_ = true;
    Register(arena);
    return {};
  }

  [[nodiscard]] ReaderBackend backend() const override { return ReaderBackend::kIoUring; }

  void Poll() override {
    // Completions come to the queue when we enter the kernel (COOP_TASKRUN), which peeking does
    // where the kernel has some (TASKRUN_FLAG): polls are many, and most find none.
    Reap();
  }

  void BeginBatch() override { batch_ = true; }
  void EndBatch() override {
    batch_ = false;
    // What fails is told to those that wait.
    if (broken_ == 0) static_cast<void>(Submit());
  }

 protected:
  int Begin(unsigned slot, const Piece& piece) override {
    if (broken_ != 0) return broken_;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return EBUSY;
    const auto length = static_cast<unsigned>(piece.bytes);
    if (IsRegistered(piece)) {
      io_uring_prep_read_fixed(sqe, direct_.fd(), piece.memory, length, piece.offset, 0);
    } else {
      io_uring_prep_read(sqe, direct_.fd(), piece.memory, length, piece.offset);
    }
    io_uring_sqe_set_data64(sqe, slot);
    operations_[slot] = {true, 0};
    queued_[n_queued_++] = slot;
    return batch_ ? 0 : Submit();
  }

  Result<uint64_t> Finish(unsigned slot, const Piece& piece) override {
    while (true) {
      if (const int error = Await(slot); error != 0) return UnavailableError(ErrnoText(error));
      const int result = operations_[slot].result;
      if (result >= 0) return static_cast<uint64_t>(result);
      if (result != -EINTR && result != -EAGAIN) return UnavailableError(ErrnoText(-result));
      if (const int error = Begin(slot, piece); error != 0) {
        return UnavailableError(ErrnoText(error));
      }
    }
  }

  [[nodiscard]] bool UnderWay(unsigned slot) const override { return operations_[slot].under_way; }

 private:
  struct Operation {
    bool under_way = false;
    int result = 0;
  };

  // 0 or an errno. A transient refusal leaves the entries in the queue; Await submits them.
  int Submit() { return Submitted(io_uring_submit(&ring_)); }

  // What the kernel said of the entries in the queue.
  int Submitted(int result) {
    if (result >= 0) {
      const size_t n = std::min(n_queued_, static_cast<size_t>(result));
      std::copy(queued_.begin() + n, queued_.begin() + n_queued_, queued_.begin());
      n_queued_ -= n;
      return 0;
    }
    if (IsTransient(result)) return 0;
    // None can be taken back: nothing is submitted any more, and these are over.
    broken_ = -result;
    for (size_t i = 0; i < n_queued_; ++i) operations_[queued_[i]] = {false, result};
    n_queued_ = 0;
    return broken_;
  }

  // Pins the arena, so that a read need not look up and pin its pages (which also counts against
  // RLIMIT_MEMLOCK). Reads work without.
  void Register(std::span<std::byte> arena) {
    if (arena.empty()) return;
    if (arena.size() > kMaxRegisteredBytes) {
      refusals_.push_back("io_uring: buffers not registered: an arena of " +
                          FormatBytes(arena.size()) + " is over " +
                          FormatBytes(kMaxRegisteredBytes));
      return;
    }
    const iovec buffer{arena.data(), arena.size()};
    if (const int result = io_uring_register_buffers(&ring_, &buffer, 1); result < 0) {
      rlimit limit{};
      getrlimit(RLIMIT_MEMLOCK, &limit);
      refusals_.push_back("io_uring: buffers not registered: " + ErrnoText(-result) + " (arena " +
                          FormatBytes(arena.size()) + ", RLIMIT_MEMLOCK " +
                          FormatBytes(limit.rlim_cur) + ")");
      return;
    }
    arena_ = arena;
  }

  [[nodiscard]] bool IsRegistered(const Piece& piece) const {
    return piece.memory >= arena_.data() &&
           piece.memory + piece.bytes <= arena_.data() + arena_.size() && !arena_.empty();
  }

  // Reaps completions until the one of `slot` has come. 0 or the errno that ended the ring's use.
  int Await(unsigned slot) {
    while (operations_[slot].under_way) {
      // SQPOLL aside this is one system call that submits what a batch or a transient refusal left,
      // and waits. Of a broken ring what the kernel has is waited for still.
      if (broken_ == 0) {
        static_cast<void>(Submitted(io_uring_submit_and_wait(&ring_, 1)));
      } else {
        io_uring_cqe* cqe = nullptr;
        const int result = io_uring_wait_cqe(&ring_, &cqe);
        if (result < 0 && !IsTransient(result)) return -result;
      }
      Reap();
    }
    return 0;
  }

  // Takes what has completed out of the queue.
  void Reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      Operation& operation = operations_[io_uring_cqe_get_data64(cqe)];
      operation = {false, cqe->res};
      io_uring_cqe_seen(&ring_, cqe);
    }
  }

  DirectDescriptor direct_;
  io_uring ring_{};
  bool ring_open_ = false;
  bool batch_ = false;
  int broken_ = 0;              // an errno: the ring refuses to be used
  std::span<std::byte> arena_;  // registered as buffer 0; empty: not registered
  std::array<Operation, kMaxInFlight> operations_;
  std::array<unsigned, kQueueDepth> queued_{};  // slots that the kernel does not have yet, in order
  size_t n_queued_ = 0;
};

}  // namespace

Result<std::unique_ptr<WeightReader>> OpenUringReader(RandomAccessFile& file,
                                                      std::span<std::byte> arena) {
  auto reader = std::make_unique<UringReader>(file);
  THIMBLE_RETURN_IF_ERROR(reader->Open(arena));
  return std::unique_ptr<WeightReader>(std::move(reader));
}

}  // namespace thimble
