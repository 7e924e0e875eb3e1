#include "daemon/run/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "storage/base/bytes.h"

namespace thimble {

Result<std::unique_ptr<Arena>> Arena::Map(uint64_t bytes, uint64_t huge_bytes) {
  if (bytes == 0 || bytes > SIZE_MAX - 2 * kHugePageBytes) {
    return ResourceExhaustedError("map an arena of " + FormatBytes(bytes) +
                                  ": outside this machine's address space");
  }
  // Mapped with room to begin at a huge page; what lies around is given back.
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t room = bytes >= kHugePageBytes ? kHugePageBytes : 0;
  const uint64_t mapped_bytes = AlignUp(bytes, page_bytes) + room;
  void* mapped = ::mmap(nullptr, static_cast<size_t>(mapped_bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return ErrnoError(errno, "map an arena of " + FormatBytes(bytes));
  auto* base = static_cast<std::byte*>(mapped);
  if (room > 0) {
    const uint64_t before = -reinterpret_cast<uintptr_t>(mapped) % kHugePageBytes;
    base += before;
    if (before > 0) ::munmap(mapped, static_cast<size_t>(before));
    if (before < room) {
      ::munmap(base + AlignUp(bytes, page_bytes), static_cast<size_t>(room - before));
    }
    // Advice: without huge pages, or without one free, these are small pages. No byte more is used:
    // a huge page is taken only where all of it is the arena's.
    const uint64_t huge = AlignDown(std::min(bytes, huge_bytes), kHugePageBytes);
    if (huge > 0) static_cast<void>(::madvise(base, static_cast<size_t>(huge), MADV_HUGEPAGE));
  }
  return std::unique_ptr<Arena>(new Arena(base, bytes));
}

void Arena::PartHugePages(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  const auto bytes = static_cast<size_t>(end - begin);
  static_cast<void>(::madvise(base_ + begin, bytes, MADV_NOHUGEPAGE));
  static_cast<void>(::madvise(base_ + begin, bytes, MADV_COLD));  // Linux 5.4
}

void Arena::Release(uint64_t begin, uint64_t end) {
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  begin = AlignUp(begin, page_bytes);
  end = AlignDown(end, page_bytes);
  if (begin >= end) return;
  const uint64_t whole_begin = std::min(end, AlignUp(begin, kHugePageBytes));
  PartHugePages(begin, whole_begin);
  PartHugePages(std::max(whole_begin, AlignDown(end, kHugePageBytes)), end);
  static_cast<void>(::madvise(base_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED));
}

void Arena::UseSmallPages(uint64_t begin, uint64_t end) {
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  begin = AlignDown(begin, page_bytes);
  end = AlignUp(std::min(end, bytes_), page_bytes);
  if (begin >= end) return;
  static_cast<void>(::madvise(base_ + begin, static_cast<size_t>(end - begin), MADV_NOHUGEPAGE));
}

uint64_t Arena::InRam(uint64_t begin, uint64_t end) const {
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::array<unsigned char, 1024> present;  // a page each: 4 MiB at once
  uint64_t bytes = 0;
  begin = AlignUp(begin, page_bytes);
  while (begin < end) {
    const uint64_t span = std::min(end - begin, present.size() * page_bytes);
    if (::mincore(base_ + begin, static_cast<size_t>(span), present.data()) != 0) return bytes;
    for (uint64_t page = 0; page * page_bytes < span; ++page) {
      if ((present[page] & 1) != 0) bytes += std::min(page_bytes, span - page * page_bytes);
    }
    begin += span;
  }
  return bytes;
}

Arena::~Arena() { ::munmap(base_, static_cast<size_t>(bytes_)); }

}  // namespace thimble
