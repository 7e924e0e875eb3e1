// What the daemon is and does now, as plain numbers: filled by the engine, told over gRPC (and to
// whoever else asks) by the serving code. Memory: some strings while it is told.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "daemon/ceiling/ceiling.h"
#include "daemon/plan/stage.h"
#include "daemon/queue/scheduler.h"

namespace thimble {

// Who holds the control group's RAM, in bytes. They add up to what the group uses now: `program`
// takes what is left of the anonymous RAM, `kernel` what is neither anonymous nor page cache.
struct MemoryOwners {
  uint64_t program = 0;     // its heap and stacks; its code, which is locked in RAM
  uint64_t work = 0;        // of the arena: the ring of tiles, the running group's buffers
  uint64_t resident = 0;    // of the arena: weights that stay
  uint64_t page_cache = 0;  // LMDB's pages and other files', which the kernel takes back
  uint64_t kernel = 0;      // page tables, sockets, rings, slab
};

struct DaemonStatus {
  std::string version;
  std::string model_name;
  std::string architecture;
  uint64_t model_bytes = 0;
  uint32_t context_tokens = 0;
  double uptime_seconds = 0;

  uint64_t ceiling_bytes = 0;  // 0: none
  std::string enforcement;
  std::string control_group;
  CeilingUsage memory;
  MemoryOwners owners;

  uint64_t plan_peak_bytes = 0;
  uint64_t arena_peak_bytes = 0;
  uint64_t resident_bytes = 0;
  uint64_t yielded_bytes = 0;  // of these, what is to give way to others in the group
  std::string granularity;
  uint32_t groups = 0;
  std::string stage;
  bool pass_running = false;
  uint32_t stage_index = 0;                                 // in the plan: what runs or runs next
  std::array<StageHistogram, kStageKinds> stage_seconds{};  // by StageKind, waiting aside
  uint64_t passes = 0;
  uint64_t pass_rows = 0;

  SchedulerStatus requests;
  uint32_t max_active = 0;
  uint32_t max_queue = 0;
  uint64_t prefix_hit_tokens = 0;

  double flash_bytes_per_second = 0;      // measured at start
  double processor_bytes_per_second = 0;  // of weights, one row; measured at start
  std::string reader;
  std::vector<std::string> reader_refusals;
  uint64_t flash_bytes_read = 0;
  double flash_stall_seconds = 0;
  uint64_t stage_bytes_written = 0;
  uint64_t flash_bytes_written = 0;  // by the process, whatever for; 0 where the kernel can't tell
  std::vector<std::string> notes;
};

class StatusSource {
 public:
  virtual ~StatusSource() = default;
  [[nodiscard]] virtual DaemonStatus Describe() const = 0;
};

}  // namespace thimble
