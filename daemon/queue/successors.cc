#include "daemon/queue/successors.h"

namespace thimble {

void Successors::Learn(int32_t token, std::span<const int32_t> likeliest) {
  if (token < 0 || entries_.empty() || likeliest.empty()) return;
  Entry& entry = entries_[Index(token)];
  entry.token = token;
  entry.next.fill(-1);
  const size_t n = std::min(likeliest.size(), entry.next.size());
  std::copy_n(likeliest.begin(), n, entry.next.begin());
}

std::span<const int32_t> Successors::After(int32_t token) const {
  if (token < 0 || entries_.empty()) return {};
  const Entry& entry = entries_[Index(token)];
  if (entry.token != token) return {};
  const auto end = std::find(entry.next.begin(), entry.next.end(), -1);
  return {entry.next.begin(), end};
}

}  // namespace thimble
