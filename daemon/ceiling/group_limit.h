// Limits of a memory control group, as text written to the kernel's files. Called by: the daemon's
// own group, `thimble bench`. Memory: none kept.
#pragma once

#include <cstdint>
#include <string>

#include "daemon/ceiling/cgroup_fs.h"
#include "storage/base/status.h"

namespace thimble {

// One write; FAILED_PRECONDITION "write TEXT to PATH: Permission denied" where the kernel refuses.
Status WriteGroupFile(CgroupFs& fs, const std::string& path, const std::string& text);

// memory.limit_in_bytes of the v1 group in `directory`, memory.memsw.limit_in_bytes with it where
// there is one, and no swapping.
Status SetV1MemoryLimit(CgroupFs& fs, const std::string& directory, uint64_t limit_bytes);

}  // namespace thimble
