#include "client/offline.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "daemon/ceiling/budget.h"
#include "storage/base/bytes.h"

namespace thimble {

Result<PlanOptions> OfflinePlanOptions(const std::string& ram_ceiling,
                                       const std::string& granularity, uint32_t max_rows,
                                       uint32_t max_logit_rows) {
  PlanOptions options;
  THIMBLE_ASSIGN_OR_RETURN(options.granularity, ParseGranularity(granularity));
  options.max_rows = max_rows;
  options.max_logit_rows = max_logit_rows;
  if (!ram_ceiling.empty()) {
    THIMBLE_ASSIGN_OR_RETURN(const uint64_t ceiling_bytes, ParseSize(ram_ceiling));
    options.budget_bytes = BudgetBytes(ceiling_bytes);
    if (options.budget_bytes == 0) {
      return InvalidArgumentError("--ram-ceiling " + ram_ceiling + ": the daemon itself takes " +
                                  FormatBytes(ReserveBytes(ceiling_bytes)) +
                                  " of the ceiling, the model's buffers come on top");
    }
  }
  return options;
}

Result<std::unique_ptr<ScratchCache>> ScratchCache::Make() {
  std::error_code error;
  const std::filesystem::path directory = std::filesystem::temp_directory_path(error);
  std::string path = (error ? std::filesystem::path("/tmp") : directory) / "thimble-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) return ErrnoError(errno, "create " + path);
  std::unique_ptr<ScratchCache> scratch(new ScratchCache(path));
  THIMBLE_ASSIGN_OR_RETURN(scratch->env_,
                           LmdbEnv::Open(path, {.map_bytes = kGiB, .sync_commits = false}));
  return scratch;
}

ScratchCache::~ScratchCache() {
  env_.reset();
  std::error_code ignored;  // a scratch directory that stays behind is in the temporary directory
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace thimble
