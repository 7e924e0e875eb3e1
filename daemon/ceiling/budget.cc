#include "daemon/ceiling/budget.h"

#include <algorithm>

namespace thimble {

uint64_t ReserveBytes(uint64_t ceiling_bytes) {
  return std::clamp(ceiling_bytes / 16 * 9, kReserveMinBytes, kReserveBytes);
}

uint64_t BudgetBytes(uint64_t ceiling_bytes) {
  if (ceiling_bytes == UINT64_MAX) return UINT64_MAX;
  const uint64_t reserve = ReserveBytes(ceiling_bytes);
  return ceiling_bytes > reserve ? AlignDown(ceiling_bytes - reserve, 4096) : 0;
}

uint64_t SpareBytes(uint64_t ceiling_bytes) {
  const uint64_t budget = BudgetBytes(ceiling_bytes);
  if (budget == 0 || budget == UINT64_MAX) return 0;
  return AlignDown(ReserveBytes(ceiling_bytes) - kReserveLeanBytes, 4096);
}

}  // namespace thimble
