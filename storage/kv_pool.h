// RAM for blocks of open sequences: the rows of blocks that are not full yet, which then need not
// go through LMDB token by token, and copies of full blocks, which attention then need not read
// from flash again for every token. What has no place here lies in LMDB alone.
//
// A slot holds one block of all layers. Slots lie one behind the other from the end of the memory
// downwards, and the first free one is taken, so that what is below begin() may serve something
// else meanwhile. Called by: KvCache. Memory: the caller's, and about 100 bytes a slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "storage/kv_block_index.h"

namespace thimble {

class KvPool {
 public:
  // What a slot has.
  enum class Holds : uint8_t {
    kNothing,
    kRows,  // rows of a block that is not full, or not stored yet; in_tail aside nowhere else
    kCopy,  // layers [0, n_layers) of a block that LMDB has
  };
  struct Slot {
    std::byte* memory = nullptr;  // [layers][n_kv_heads][2][kKvBlockTokens][VectorHalves()]
    uint64_t sequence = 0;
    uint32_t block = 0;
    Holds holds = Holds::kNothing;
    uint32_t n_rows = 0;    // kRows: that are committed
    bool in_tail = false;   // kRows: some of them are in the tails, too
    uint32_t n_layers = 0;  // kCopy
    uint64_t pass = 0;      // the last one that had a use for it
    [[nodiscard]] bool Has(uint32_t layer) const {
      return holds == Holds::kRows || layer < n_layers;
    }
  };

  // Of one layer of a block, and of a slot; both multiples of 64.
  static uint64_t LayerBytes(const KvShape& shape);
  static uint64_t SlotBytes(const KvShape& shape);

  // As many slots as `memory`, aligned to 64 bytes, has room for.
  KvPool(const KvShape& shape, std::span<std::byte> memory);

  // A new pass, which needs what lies before `from` itself: slots below are not given to it. Those
  // from `sure_from` on are for rows first.
  void BeginPass(const std::byte* from, const std::byte* sure_from);
  [[nodiscard]] uint64_t pass() const { return pass_; }

  // The slot of that block, or nullptr.
  [[nodiscard]] Slot* Find(uint64_t sequence, uint32_t block);
  [[nodiscard]] std::byte* Layer(const Slot& slot, uint32_t layer) const {
    return slot.memory + layer * layer_bytes_;
  }

  // A slot for a block that has none, used by this pass; nullptr where there is none to be had.
  // For rows any copy gives way, the one that was not used for longest first, of those in sure
  // slots before others, and the one nearest to its sequence's beginning: a prompt's blocks lie
  // together in the file and are read at once, where those of generated tokens need a read each.
  // For a copy only those that no pass has used for a while give way: a set that changed with every
  // pass would never be hit.
  Slot* ClaimForRows(uint64_t sequence, uint32_t block);
  Slot* ClaimForCopy(uint64_t sequence, uint32_t block);

  void Free(Slot& slot);
  void FreeSequence(uint64_t sequence);

  [[nodiscard]] std::span<Slot> slots() { return slots_; }
  // Where the slots in use begin; the memory's end where none is.
  [[nodiscard]] const std::byte* begin() const;
  [[nodiscard]] size_t used() const { return places_.size(); }

 private:
  static uint64_t Place(uint64_t sequence, uint32_t block) { return (sequence << 24) | block; }
  // Of slots [0, n).
  Slot* Claim(uint64_t sequence, uint32_t block, uint64_t before_pass, Holds holds, size_t n);
  [[nodiscard]] size_t CountFrom(const std::byte* from) const;

  const uint64_t layer_bytes_;
  const size_t slot_bytes_;
  const std::byte* const end_;
  std::vector<Slot> slots_;  // by falling address
  size_t n_usable_ = 0;      // of them, in this pass
  size_t n_sure_ = 0;        // of these
  uint64_t pass_ = 0;
  std::unordered_map<uint64_t, size_t> places_;  // slots in use, by sequence and block
};

}  // namespace thimble
