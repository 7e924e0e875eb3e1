// The arena: one anonymous mapping that holds every large buffer, mapped at start and placed by the
// plan. It hands out spans and remembers the furthest byte it has handed out, which is what the
// plan's peak is checked against. It asks for huge pages: a direct read into memory that is one
// piece is one segment for the device (measured on a virtual disk: 2.6 GB/s against 1.0 in pages of
// 4 KiB). Called by: the runner, the probe of the flash. Memory: what the plan says; pages become
// resident when they are first written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "daemon/plan/plan.h"
#include "storage/base/status.h"

namespace thimble {

class Arena {
 public:
  // RESOURCE_EXHAUSTED where the kernel refuses the mapping. The memory is zero and page-aligned.
  // Huge pages are asked for in the first `huge_bytes`: what is used little by little and given
  // back should not be among them.
  static Result<std::unique_ptr<Arena>> Map(uint64_t bytes, uint64_t huge_bytes = UINT64_MAX);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // [offset, offset + bytes), which must lie within the arena. Valid while the arena lives.
  std::byte* Use(uint64_t offset, uint64_t bytes) {
    peak_bytes_ = std::max(peak_bytes_, offset + bytes);
    return base_ + offset;
  }
  // Gives the whole pages of [begin, end), which nobody has pinned, back to the kernel: zeros when
  // they are used again.
  void Release(uint64_t begin, uint64_t end);
  // No huge page is to reach into [begin, end) any more.
  void UseSmallPages(uint64_t begin, uint64_t end);
  [[nodiscard]] std::span<std::byte> all() const { return {base_, static_cast<size_t>(bytes_)}; }
  [[nodiscard]] uint64_t peak_bytes() const { return peak_bytes_; }
  // Of the pages that begin in [begin, end): the bytes in RAM, up to `end`.
  [[nodiscard]] uint64_t InRam(uint64_t begin, uint64_t end) const;

 private:
  Arena(std::byte* base, uint64_t bytes) : base_(base), bytes_(bytes) {}
  // What is given back of a huge page stays in RAM until the kernel has parted the page: the advice
  // that it is cold does that at once. A page that is parted is not to be made whole again.
  void PartHugePages(uint64_t begin, uint64_t end);
  std::byte* const base_;
  const uint64_t bytes_;
  uint64_t peak_bytes_ = 0;
};

}  // namespace thimble
