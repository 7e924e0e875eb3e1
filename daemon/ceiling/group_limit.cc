#include "daemon/ceiling/group_limit.h"

#include <system_error>

#include "daemon/ceiling/cgroup.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// How far the limit of memory and swap lies above that of memory. memsw is charged first, and
// Linux 6.18 does not count its failures: measured for a 64 MiB read under 32 MiB, memory.failcnt
// and memory.memsw.failcnt both stay 0 with 0 or 1 MiB between the limits, and memory.failcnt
// counts 13 from 2 MiB on, the largest folio that is charged at once. Twice that; swappiness is 0
// besides.
constexpr uint64_t kSwapSlackBytes = 4 * kMiB;

}  // namespace

Status WriteGroupFile(CgroupFs& fs, const std::string& path, const std::string& text) {
  if (const int error = fs.Write(path, text); error != 0) {
    return FailedPreconditionError("write " + text + " to " + path + ": " +
                                   std::generic_category().message(error));
  }
  return {};
}

// The kernel keeps limit_in_bytes <= memsw.limit_in_bytes (memory and swap), so the order of the
// writes depends on the direction. Without swap accounting there is no memsw file.
Status SetV1MemoryLimit(CgroupFs& fs, const std::string& directory, uint64_t limit_bytes) {
  const std::string memory = directory + "/memory.limit_in_bytes";
  const std::string memory_and_swap = directory + "/memory.memsw.limit_in_bytes";
  const std::string text = std::to_string(limit_bytes);
  const std::string with_swap = std::to_string(limit_bytes + kSwapSlackBytes);
  const bool has_swap = fs.Read(memory_and_swap).ok();
  const Result<std::string> before = fs.Read(memory);
  const bool raising = before.ok() && ParseLimit(*before) < limit_bytes;
  if (has_swap && raising) THIMBLE_RETURN_IF_ERROR(WriteGroupFile(fs, memory_and_swap, with_swap));
  THIMBLE_RETURN_IF_ERROR(WriteGroupFile(fs, memory, text));
  if (has_swap && !raising) THIMBLE_RETURN_IF_ERROR(WriteGroupFile(fs, memory_and_swap, with_swap));
  // Refused without swap in the kernel, and then without meaning.
  (void)fs.Write(directory + "/memory.swappiness", "0");
  return {};
}

}  // namespace thimble
