#include "storage/kv_pool.h"

#include <algorithm>
#include <cstddef>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr uint64_t kAlignment = 64;
// Passes after which a copy that none of them used gives way to another one.
constexpr uint64_t kUnusedPasses = 16;

}  // namespace

uint64_t KvPool::LayerBytes(const KvShape& shape) {
  return AlignUp(shape.BlockHalves() * sizeof(uint16_t), kAlignment);
}

uint64_t KvPool::SlotBytes(const KvShape& shape) { return shape.n_layers * LayerBytes(shape); }

KvPool::KvPool(const KvShape& shape, std::span<std::byte> memory)
    : layer_bytes_(LayerBytes(shape)),
      slot_bytes_(static_cast<size_t>(SlotBytes(shape))),
      end_(memory.data() + memory.size()) {
  slots_.resize(memory.size() / slot_bytes_);
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].memory = memory.data() + memory.size() - (i + 1) * slot_bytes_;
  }
  n_usable_ = n_sure_ = slots_.size();
  places_.reserve(slots_.size());
}

size_t KvPool::CountFrom(const std::byte* from) const {
  size_t n = 0;
  while (n < slots_.size() && slots_[n].memory >= from) ++n;
  return n;
}

void KvPool::BeginPass(const std::byte* from, const std::byte* sure_from) {
  ++pass_;
  n_usable_ = CountFrom(from);
  n_sure_ = std::min(n_usable_, CountFrom(sure_from));
}

KvPool::Slot* KvPool::Find(uint64_t sequence, uint32_t block) {
  const auto found = places_.find(Place(sequence, block));
  return found == places_.end() ? nullptr : &slots_[found->second];
}

KvPool::Slot* KvPool::ClaimForRows(uint64_t sequence, uint32_t block) {
  Slot* sure = Claim(sequence, block, UINT64_MAX, Holds::kRows, n_sure_);
  return sure != nullptr ? sure : Claim(sequence, block, UINT64_MAX, Holds::kRows, n_usable_);
}

KvPool::Slot* KvPool::ClaimForCopy(uint64_t sequence, uint32_t block) {
  return Claim(sequence, block, pass_ > kUnusedPasses ? pass_ - kUnusedPasses : 0, Holds::kCopy,
               n_usable_);
}

KvPool::Slot* KvPool::Claim(uint64_t sequence, uint32_t block, uint64_t before_pass, Holds holds,
                            size_t n) {
  Slot* best = nullptr;
  for (size_t i = 0; i < n; ++i) {
    Slot& slot = slots_[i];
    if (slot.holds == Holds::kNothing) {
      best = &slot;
      break;
    }
    if (slot.holds != Holds::kCopy || slot.pass >= before_pass) continue;
    const bool older = best == nullptr || slot.pass < best->pass;
    if (older || (slot.pass == best->pass && slot.block < best->block)) best = &slot;
  }
  if (best == nullptr) return nullptr;
  if (best->holds != Holds::kNothing) Free(*best);
  *best = {
      .memory = best->memory, .sequence = sequence, .block = block, .holds = holds, .pass = pass_};
  places_[Place(sequence, block)] = static_cast<size_t>(best - slots_.data());
  return best;
}

void KvPool::Free(Slot& slot) {
  places_.erase(Place(slot.sequence, slot.block));
  slot = {.memory = slot.memory};
}

void KvPool::FreeSequence(uint64_t sequence) {
  for (Slot& slot : slots_) {
    if (slot.holds != Holds::kNothing && slot.sequence == sequence) Free(slot);
  }
}

const std::byte* KvPool::begin() const {
  for (size_t i = slots_.size(); i-- > 0;) {
    if (slots_[i].holds != Holds::kNothing) return slots_[i].memory;
  }
  return end_;
}

}  // namespace thimble
