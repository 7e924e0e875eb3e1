#include "daemon/run/arena.h"

#include <sys/mman.h>

#include <cerrno>
#include <string>

#include "storage/base/bytes.h"

namespace thimble {

Result<std::unique_ptr<Arena>> Arena::Map(uint64_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX) {
    return ResourceExhaustedError("map an arena of " + FormatBytes(bytes) +
                                  ": outside this machine's address space");
  }
  void* base = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return ErrnoError(errno, "map an arena of " + FormatBytes(bytes));
  return std::unique_ptr<Arena>(new Arena(static_cast<std::byte*>(base), bytes));
}

Arena::~Arena() { ::munmap(base_, static_cast<size_t>(bytes_)); }

}  // namespace thimble
