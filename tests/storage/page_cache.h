// What of a file the kernel has in RAM, for tests of what is given back.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace thimble {

// Where a file is nothing but page cache, there is nothing to give back.
inline bool IsTmpfs(const std::string& path) {
  struct statfs fs {};
  return ::statfs(path.c_str(), &fs) == 0 && fs.f_type == 0x01021994;
}

// Bytes of the file's first `bytes` in the page cache; UINT64_MAX where the kernel does not say.
inline uint64_t InPageCache(const std::string& path, uint64_t bytes = UINT64_MAX) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat st {};
  if (fd < 0 || ::fstat(fd, &st) != 0) return UINT64_MAX;
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto size = static_cast<size_t>(std::min(bytes, static_cast<uint64_t>(st.st_size)));
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  if (map == MAP_FAILED) return UINT64_MAX;
  std::vector<unsigned char> present(size / page_bytes + 1);
  uint64_t found = UINT64_MAX;
  if (::mincore(map, size, present.data()) == 0) {
    found = 0;
    for (const unsigned char page : present) found += (page & 1) * page_bytes;
  }
  ::munmap(map, size);
  return found;
}

}  // namespace thimble
