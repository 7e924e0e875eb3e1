#include "daemon/ceiling/program_pages.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

struct Segment {
  void* pages;
  uint64_t bytes;
  bool writable;
  bool library;  // not the program's own
};

// Calls `use` for every segment of the program and its libraries: the file's own pages in those
// that are read-only, copies of them and such as have not been written yet in the others.
template <typename Use>
void ForEachSegment(Use use) {
  const auto visit = [](struct dl_phdr_info* info, size_t /*size*/, void* data) {
    const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr)& header = info->dlpi_phdr[i];
      if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
      const uint64_t address = info->dlpi_addr + header.p_vaddr;
      const uint64_t begin = AlignDown(address, page_bytes);
      // The loader gives addresses as numbers.
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      void* const pages = reinterpret_cast<void*>(static_cast<uintptr_t>(begin));
      (*static_cast<Use*>(data))(Segment{
          pages, AlignUp(address + header.p_memsz, page_bytes) - begin,
          (header.p_flags & PF_W) != 0, info->dlpi_name != nullptr && info->dlpi_name[0] != 0});
    }
    return 0;
  };
  ::dl_iterate_phdr(visit, &use);
}

}  // namespace

void DropProgramPageCache() {
  const auto drop = [](const char* path) {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    static_cast<void>(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    ::close(fd);
  };
  const auto visit = [](struct dl_phdr_info* info, size_t /*size*/, void* data) {
    // The program itself has no name, nor has the kernel's own page of code a file.
    if (info->dlpi_name != nullptr && info->dlpi_name[0] == '/') {
      (*static_cast<decltype(drop)*>(data))(info->dlpi_name);
    }
    return 0;
  };
  auto use = drop;
  ::dl_iterate_phdr(visit, &use);
  drop("/proc/self/exe");
}

Status KeepProgramPages() {
  // These are advice: where one is refused, more pages stay than need to.
  ForEachSegment([](const Segment& s) {
    // Writable ones too: one fault for a table of virtual functions read 8 MiB around it, all of
    // the program, where the disk's read-ahead was that much.
    static_cast<void>(::madvise(s.pages, s.bytes, MADV_RANDOM));
    if (!s.writable) static_cast<void>(::madvise(s.pages, s.bytes, MADV_DONTNEED));
  });
  DropProgramPageCache();
  uint64_t refused_bytes = 0;
  int error = 0;
  ForEachSegment([&](const Segment& s) {
    if (s.writable || s.library || ::mlock2(s.pages, s.bytes, MLOCK_ONFAULT) == 0) return;
    refused_bytes += s.bytes;
    error = errno;
  });
  if (refused_bytes == 0) return {};
  return ErrnoError(error, "lock " + FormatBytes(refused_bytes) +
                               " of the program's pages (ulimit -l, LimitMEMLOCK=)");
}

}  // namespace thimble
