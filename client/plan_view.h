// What `thimble plan` prints, of the daemon's plan and of one made without a daemon alike.
// Called by: plan.cc, offline_plan.cc. Memory: a line a group.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/commands.h"
#include "storage/base/status.h"

namespace thimble {

struct PlanView {
  std::string model;
  std::string architecture;
  uint32_t layers = 0;
  std::string ceiling;  // "64M"; empty: none
  std::string granularity;
  uint64_t budget_bytes = 0;  // 0: no ceiling
  uint64_t spare_bytes = 0;
  uint64_t stages = 0;
  uint32_t rows = 0;
  uint32_t shared_prompt_rows = 0;  // as flash and processor were measured; 0: they were not
  uint64_t tile_bytes = 0;
  uint64_t ring_bytes = 0;
  uint64_t values_bytes = 0;
  uint64_t resident_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t peak_bytes = 0;
  uint64_t model_bytes = 0;
  uint64_t pass_bytes = 0;
  struct Group {
    std::string name;
    uint64_t stages = 0;
    uint64_t weight_bytes = 0;
    uint64_t activation_bytes = 0;
    uint64_t kv_bytes = 0;
    uint64_t total_bytes = 0;
  };
  std::vector<Group> groups;
};

// "layer 3 qkv head 2". `layer` and `head` below 0: of none.
std::string StageText(const std::string& kind, int64_t layer, int64_t head);

std::string PlanJson(const PlanView& plan);  // one object, without the end of line
std::string PlanText(const PlanView& plan);

// Of command.model under command.ram_ceiling, without a daemon.
Result<PlanView> PlanOffline(const PlanCommand& command);

}  // namespace thimble
