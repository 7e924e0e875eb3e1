#include "storage/weight_reader.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "storage/base/bytes.h"
#include "storage/weight_reader_backends.h"

namespace thimble {
namespace {

// In the order they are tried.
constexpr std::array kBackends = {ReaderBackend::kIoUring, ReaderBackend::kLinuxAio,
                                  ReaderBackend::kDirectPread, ReaderBackend::kBufferedPread};

// The largest operation: lengths are 32 bits in io_uring, and the kernel stops at 2 GiB - 4 KiB
// anyway.
constexpr uint64_t kMaxOperationBytes = kGiB;

std::string Describe(const RandomAccessFile& file, uint64_t offset, uint64_t bytes) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), " at offset 0x%llx, %llu bytes",
                static_cast<unsigned long long>(offset), static_cast<unsigned long long>(bytes));
  return "read " + file.path() + text.data();
}

Result<std::unique_ptr<WeightReader>> OpenBackend(RandomAccessFile& file, ReaderBackend backend,
                                                  std::span<std::byte> arena) {
  switch (backend) {
    case ReaderBackend::kIoUring:
      return OpenUringReader(file, arena);
    case ReaderBackend::kLinuxAio:
      return OpenAioReader(file);
    case ReaderBackend::kDirectPread:
      return OpenDirectReader(file);
    case ReaderBackend::kAuto:
    case ReaderBackend::kBufferedPread:
      break;
  }
  return OpenBufferedReader(file);
}

// Reads the first byte of the file the way weights will be read: some file systems accept O_DIRECT
// and refuse the read, some seccomp profiles allow io_uring_setup and refuse io_uring_enter.
Status Probe(RandomAccessFile& file, WeightReader& reader) {
  THIMBLE_ASSIGN_OR_RETURN(const FileIdentity identity, file.Identity());
  if (identity.size_bytes == 0) return {};
  const std::unique_ptr<void, decltype(&std::free)> page(
      std::aligned_alloc(kReadAlignment, kReadAlignment), &std::free);
  if (page == nullptr) return ResourceExhaustedError("no memory for the probe's page");
  THIMBLE_ASSIGN_OR_RETURN(const uint32_t ticket,
                           reader.Start(0, 1, static_cast<std::byte*>(page.get())));
  return reader.Wait(ticket);
}

}  // namespace

std::string_view ReaderBackendName(ReaderBackend backend) {
  switch (backend) {
    case ReaderBackend::kAuto:
      return "auto";
    case ReaderBackend::kIoUring:
      return "io_uring";
    case ReaderBackend::kLinuxAio:
      return "aio";
    case ReaderBackend::kDirectPread:
      return "direct";
    case ReaderBackend::kBufferedPread:
      return "buffered";
  }
  return "unknown";
}

Result<ReaderBackend> ParseReaderBackend(std::string_view text) {
  if (text == ReaderBackendName(ReaderBackend::kAuto)) return ReaderBackend::kAuto;
  for (const ReaderBackend backend : kBackends) {
    if (text == ReaderBackendName(backend)) return backend;
  }
  return InvalidArgumentError("reader \"" + std::string(text) +
                              "\": expected auto, io_uring, aio, direct or buffered");
}

std::string ErrnoText(int error_number) { return std::generic_category().message(error_number); }

Result<std::unique_ptr<WeightReader>> WeightReader::Open(RandomAccessFile& file,
                                                         ReaderBackend backend,
                                                         std::span<std::byte> arena) {
  std::vector<std::string> refusals;
  for (const ReaderBackend candidate : kBackends) {
    if (backend != ReaderBackend::kAuto && backend != candidate) continue;
    Result<std::unique_ptr<WeightReader>> reader = OpenBackend(file, candidate, arena);
    const Status status = reader.ok() ? Probe(file, **reader) : reader.status();
    if (status.ok()) {
      WeightReader& chosen = **reader;
      chosen.stats_ = {};  // the probe is not the caller's
      chosen.refusals_.insert(chosen.refusals_.begin(), refusals.begin(), refusals.end());
      return reader;
    }
    refusals.push_back(std::string(ReaderBackendName(candidate)) + ": " + status.message());
  }
  std::string reasons;
  for (const std::string& refusal : refusals) reasons += (reasons.empty() ? "" : "; ") + refusal;
  return UnavailableError("open " + file.path() + " for reading weights: " + reasons);
}

SpanReader::Piece SpanReader::RestOf(const Span& span) {
  return {span.position, std::min(span.end - span.position, kMaxOperationBytes),
          span.memory + (span.position - span.begin)};
}

Result<uint32_t> SpanReader::Start(uint64_t offset, uint64_t bytes, std::byte* buffer) {
  constexpr uint64_t kEnd = INT64_MAX - kReadAlignment;
  if (bytes == 0 || offset > kEnd || bytes > kEnd - offset) {
    return InvalidArgumentError(Describe(file_, offset, bytes) + ": not a span of a file");
  }
  if (reinterpret_cast<uintptr_t>(buffer) % kReadAlignment != 0) {
    return InvalidArgumentError(Describe(file_, offset, bytes) + ": the buffer is not aligned to " +
                                std::to_string(kReadAlignment));
  }
  unsigned slot = 0;
  while (slot < kMaxInFlight && spans_[slot].active) ++slot;
  if (slot == kMaxInFlight) {
    return ResourceExhaustedError(Describe(file_, offset, bytes) + ": " +
                                  std::to_string(kMaxInFlight) + " reads are under way");
  }
  Span& span = spans_[slot];
  span.ticket = next_generation_++ * kMaxInFlight + slot;
  span.offset = offset;
  span.bytes = bytes;
  span.begin = AlignDown(offset, alignment_);
  span.end = AlignUp(offset + bytes, alignment_);
  span.position = span.begin;
  span.done = span.begin;
  span.memory = buffer + (span.begin - AlignDown(offset, kReadAlignment));
  if (const int error = Begin(slot, RestOf(span)); error != 0) {
    return UnavailableError(Describe(file_, offset, bytes) + ": " + ErrnoText(error));
  }
  span.active = true;
  return span.ticket;
}

Status SpanReader::Wait(uint32_t ticket) {
  const unsigned slot = ticket % kMaxInFlight;
  Span& span = spans_[slot];
  if (!span.active || span.ticket != ticket) {
    return InvalidArgumentError("wait for read " + std::to_string(ticket) + " of " + file_.path() +
                                ": no such read is under way");
  }
  const auto begin = std::chrono::steady_clock::now();
  Status status = Complete(slot, span);
  span.active = false;
  Release(span.offset, span.bytes);
  stats_.stall_ns += static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin)
          .count());
  return status;
}

Status SpanReader::Complete(unsigned slot, Span& span) {
  while (true) {
    const Result<uint64_t> read = Finish(slot, RestOf(span));
    if (!read.ok()) {
      return UnavailableError(Describe(file_, span.offset, span.bytes) + ": " +
                              read.status().message());
    }
    ++stats_.reads;
    stats_.bytes += *read;
    // Going on begins at an aligned place, so at the end of a file whose size is not aligned the
    // next operation reads the same bytes again; only an operation that brings nothing new is the
    // end.
    if (span.position + *read <= span.done) {
      return DataLossError(Describe(file_, span.offset, span.bytes) +
                           ": the file has shrunk, there is nothing from byte " +
                           std::to_string(span.done) + " on");
    }
    span.done = span.position + *read;
    if (span.done >= span.offset + span.bytes) return {};
    span.position = AlignDown(span.done, alignment_);
    if (const int error = Begin(slot, RestOf(span)); error != 0) {
      return UnavailableError(Describe(file_, span.offset, span.bytes) + ": " + ErrnoText(error));
    }
  }
}

}  // namespace thimble
