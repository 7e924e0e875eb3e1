// Keys and values of earlier tokens, in LMDB's `cache` environment, in blocks of 32 tokens.
//
// A full block is named by a hash of the model's fingerprint and of every token up to its end, so
// that equal prefixes are one block, shared by requests and across restarts; its tokens are kept
// beside it and compared when it is used again. The tail of a sequence (fewer than 32 tokens) is
// kept token by token under the sequence's own number until its block is full. docs/storage.md has
// the byte formats. Called by: the attention and query/key/value stages, and admission (prefix
// look-up). Memory: a sequence's tokens, block names, and where its blocks are in the file (about 5
// bytes a token, and 8 a layer per 32 tokens, in the KvSequence) and a count of users for each of
// its blocks (about 64 bytes per 32 tokens).
//
// A copy of every key and value is on the disk: 32 tokens of one layer take BlockHalves() x 2 bytes
// rounded up to LMDB's pages. Give the map a third more than the quota: LMDB needs it for tails,
// for pages that await reuse and for finding runs of free pages.
//
// Layouts, of IEEE halves; as q8_0 (KvType) each vector of head_dim halves is head_dim / 32 blocks
// of 34 bytes instead:
//  - one token of one layer ("row"):  [n_kv_heads][2][head_dim]        (2: key, value)
//  - one block of one layer:          [n_kv_heads][2][kKvBlockTokens][head_dim]
// With head_dim 64 one head's keys of one block are 4 KiB.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "storage/base/status.h"
#include "storage/kv_block_index.h"
#include "storage/kv_pool.h"
#include "storage/lmdb.h"
#include "storage/vocab_index.h"

namespace thimble {

// One sequence's place in the cache. Owned by the request; a handle into KvCache.
struct KvSequence {
  uint64_t id = 0;                   // names the tail; unique while the daemon lives
  uint32_t max_tokens = UINT32_MAX;  // as given to OpenSequence
  uint32_t n_tokens = 0;             // tokens whose keys and values are complete in every layer
  std::vector<KvBlockName> blocks;   // of the full blocks, in order; capacity reserved at Open
  std::vector<int32_t> tokens;       // all tokens so far; capacity reserved at Open
  // FileOffset's, [blocks][n_layers], as far as it was asked; 0: not found yet. Reserved at Open.
  std::vector<uint64_t> offsets;
};

// The rows that a pass adds to a sequence.
struct KvPassRows {
  const KvSequence* sequence = nullptr;
  uint32_t n_rows = 0;
};

// Pointers to one KV head's keys and values of one block; valid until
// the next block's Head, or until the Reader goes.
struct KvHeadBlock {
  const uint16_t* keys = nullptr;    // [n_tokens or 32][VectorHalves()]
  const uint16_t* values = nullptr;  // [n_tokens or 32][VectorHalves()]
};

// One layer of one block of a sequence.
struct KvPlace {
  uint64_t sequence = 0;
  uint32_t layer = 0;
  uint32_t block = 0;
};

// Blocks that were read past LMDB's map ahead of attention.
class KvSource {
 public:
  // The bytes of a block, valid until the next Take of another one; nullptr for one that is not to
  // be had here. Errors: the reader's.
  virtual Result<const std::byte*> Take(const KvPlace& place) = 0;

 protected:
  ~KvSource() = default;
};

class KvCache {
 public:
  // `quota_bytes`: the most full blocks may take; the least recently used ones that no open
  // sequence uses go first. Tails of an earlier process are removed; so are blocks without their
  // record.
  static Result<std::unique_ptr<KvCache>> Open(LmdbEnv& cache, const Fingerprint& model,
                                               const KvShape& shape, uint64_t quota_bytes);

  // Page cache of what is written is given back at once, with all of the file but its first
  // `bytes`: what lay there before (the vocabulary) is wanted again, and a page of it that has to
  // be read waits behind the weights.
  void KeepPageCache(uint64_t bytes) { kept_bytes_ = bytes; }

  // Begins a sequence for at most `max_tokens` tokens. The longest run of whole blocks that match
  // the beginning of `prompt` is taken over: sequence.n_tokens says how many tokens need no
  // computing (always fewer than prompt.size(), so that there is a row to take logits from).
  // Every sequence is closed by CloseSequence: its blocks are not evicted before.
  Result<KvSequence> OpenSequence(std::span<const int32_t> prompt, uint32_t max_tokens);
  // Removes the tail and lets go of the blocks. Errors leave only garbage that the next Open
  // removes.
  Status CloseSequence(KvSequence& sequence);

  // Keeps blocks in `memory` (aligned to 64 bytes, KvPool::SlotBytes each) from now on; it must
  // stay until UseRam is called again. Empty: in none; rows that are only there go to the tails
  // first.
  Status UseRam(std::span<std::byte> memory);
  // Before a pass of these rows, which needs the RAM before `from` itself: places for the blocks
  // that the rows fall into and, as room is left, for copies of those before them. What had its
  // place before `from` goes to LMDB. What lies before `sure_from` may have to give way in a later
  // pass, which for rows means writes: they get places behind it as long as there are some.
  // RESOURCE_EXHAUSTED where LMDB has no room.
  Status PlaceInRam(std::span<const KvPassRows> rows, const std::byte* from,
                    const std::byte* sure_from);
  // At any time between two steps: copies that lie before `from` are dropped, and attention finds
  // the blocks on flash; `freed` is told what RAM they had.
  void GiveWay(const std::byte* from, const std::function<void(std::span<std::byte>)>& freed);
  // The pages that LMDB's map has in RAM, at any time between two steps.
  void ReleasePages() { env_.ReleasePageCache(kept_bytes_); }
  // After PlaceInRam, when what lay in these places before is known to be gone: what the tails have
  // of the blocks that the rows fall into.
  Status BringRows(std::span<const KvPassRows> rows);
  // Where the blocks in RAM begin: what lies before may serve other things until the next
  // PlaceInRam. nullptr without RAM.
  [[nodiscard]] const std::byte* ram_begin() const { return ram_ ? ram_->begin() : nullptr; }
  // Whether any layer of the sequence's full blocks has no place in RAM.
  [[nodiscard]] bool HasBlocksOutsideRam(const KvSequence& sequence) const;
  // Whether AppendRows of so many rows has anything to write to LMDB.
  [[nodiscard]] bool AppendsToDisk(const KvSequence& sequence, uint32_t n_rows) const;

  // The rows of one pass for one sequence, layer by layer, then PrepareRows, then CommitRows:
  //  AppendRows writes `n` rows ([n][n_kv_heads][2][head_dim]) of `layer` for the tokens at
  //  positions [sequence.n_tokens, sequence.n_tokens + n). `tokens` are those n tokens. One write
  //  transaction for the call, `batch` where one is given (then the caller commits). Blocks that
  //  these rows complete are written whole under their name; others go to the tail; those of blocks
  //  in RAM go there, and are written when PrepareRows finds them complete. Without `batch` a full
  //  map or disk is met by evicting blocks and trying again; then RESOURCE_EXHAUSTED, and neither
  //  this sequence nor another is harmed. Rows that are not followed by CommitRows (an aborted
  //  pass) are overwritten by the next call for their positions. No read transaction should be
  //  open: it keeps LMDB from reusing pages. Long calls of wide models commit in parts of at most
  //  about 1 MiB.
  Status AppendRows(const KvSequence& sequence, uint32_t layer, std::span<const int32_t> tokens,
                    const uint16_t* rows, LmdbTxn* batch = nullptr);
  //  KeepRows, where the rows were guesses that do not all follow one another, so that places are
  //  not positions: of the rows appended, those at `rows` (rising; rows[i] >= i) become the first
  //  ones. All rows that were appended are in RAM (not AppendsToDisk).
  void KeepRows(const KvSequence& sequence, std::span<const uint8_t> rows);
  //  PrepareRows: every layer has its rows; completed blocks get their record, with all that may
  //  fail: it evicts first where the quota asks for it (RESOURCE_EXHAUSTED where nothing can go).
  //  `tokens` may be fewer than were appended (refused draft tokens). The sequence is as it was; it
  //  may be prepared again, or closed.
  Status PrepareRows(const KvSequence& sequence, std::span<const int32_t> tokens);
  //  CommitRows: the tokens that PrepareRows has prepared become part of the sequence. It can't
  //  fail: so a pass of several sequences prepares all of them, then commits all or none.
  void CommitRows(KvSequence& sequence, std::span<const int32_t> tokens);

  // Reads back what AppendRows wrote, also rows that are not committed yet. Holds one read
  // transaction: make one per stage, never across a return to the event loop.
  class Reader {
   public:
    // Full blocks that are not in RAM are taken from `source`, if it has them, else from the map.
    static Result<Reader> Begin(KvCache& cache, KvSource* source = nullptr);
    // Keys and values of `kv_head` for tokens [32 block, 32 block + n_tokens). `n_total` is the
    // number of tokens written so far for this layer (committed or not) and decides whether the
    // block is whole (where it lies: in RAM, `source` or the map) or gathered from the tail into
    // `scratch`
    // ([2][kKvBlockTokens][head_dim]). `pending` are the tokens of this pass behind
    // sequence.n_tokens (needed to name a block that this pass completes).
    Status Head(const KvSequence& sequence, std::span<const int32_t> pending, uint32_t layer,
                uint32_t block, uint32_t n_total, uint32_t kv_head, uint16_t* scratch,
                KvHeadBlock* out);
    // The key and the value of row `i` of those that this pass has appended, which are in RAM.
    [[nodiscard]] KvHeadBlock Row(const KvSequence& sequence, uint32_t layer, uint32_t i,
                                  uint32_t kv_head) const;

   private:
    Reader(KvCache& cache, KvSource* source, LmdbTxn txn)
        : cache_(&cache), source_(source), txn_(std::move(txn)) {}
    Status Find(const KvSequence& sequence, std::span<const int32_t> pending, uint32_t layer,
                uint32_t block, uint32_t n_total);
    KvCache* cache_;
    KvSource* source_;
    LmdbTxn txn_;
    // What the last Find found: the whole block, or the rows of a tail.
    uint64_t sequence_ = 0;
    uint32_t layer_ = UINT32_MAX;
    uint32_t block_ = 0;
    uint32_t n_total_ = 0;
    const std::byte* whole_ = nullptr;  // [n_kv_heads][2][kKvBlockTokens][head_dim]
    std::array<const std::byte*, kKvBlockTokens> rows_{};  // each [n_kv_heads][2][head_dim]
  };

  // Where env().DataFile() has a full block of `sequence` at `layer`; nullopt where it is in RAM,
  // shares its pages with others, and so may move, or is not to be found. Looked up once for a
  // sequence: LMDB's tree has to be read for it, page by page.
  [[nodiscard]] std::optional<uint64_t> FileOffset(KvSequence& sequence, uint32_t layer,
                                                   uint32_t block);

  struct Stats {
    uint64_t blocks = 0;             // full blocks kept
    uint64_t bytes = 0;              // of the file, taken by these
    uint64_t prefix_hit_tokens = 0;  // taken over by OpenSequence since start
    uint64_t evicted_blocks = 0;
    uint64_t ram_blocks = 0;  // with a place in RAM
  };
  [[nodiscard]] Stats stats() const {
    return {index_->blocks(), index_->bytes(), prefix_hit_tokens_, evicted_blocks_,
            ram_ ? ram_->used() : 0};
  }
  [[nodiscard]] const KvShape& shape() const { return shape_; }
  [[nodiscard]] LmdbEnv& env() { return env_; }

 private:
  // A block that AppendRows has completed and CommitRows has not yet made part of its sequence.
  // It is neither evicted nor, where it has no record, kept when its last user goes.
  struct Pending {
    KvBlockName name;
    uint64_t sequence;
    uint32_t block;
    bool stale;  // overwritten by later rows of the same positions
  };

  // A block in RAM that rows have completed, on its way to LMDB.
  struct CompleteInRam {
    const KvPool::Slot* slot;
    KvBlockName name;
    KvBlockName parent;
    std::array<int32_t, kKvBlockTokens> tokens;
  };

  KvCache(LmdbEnv& env, const KvShape& shape, uint64_t quota_bytes)
      : env_(env), shape_(shape), quota_bytes_(quota_bytes) {}

  Status Check(const KvSequence& sequence, uint64_t n_new, const char* operation) const;
  KvBlockName NameOf(const KvSequence& sequence, std::span<const int32_t> pending,
                     uint32_t block) const;
  Status AppendBlock(LmdbTxn& txn, const KvSequence& sequence, uint32_t layer,
                     std::span<const int32_t> tokens, const uint16_t* rows, uint32_t block);
  Status CompleteBlock(LmdbTxn& txn, const KvSequence& sequence, uint32_t layer, uint32_t block,
                       std::span<const int32_t> tokens, const uint16_t* rows);
  Result<bool> MakeWay(LmdbTxn& txn, const KvBlockName& name, const KvBlockName& parent,
                       KvBlockTokens tokens);
  [[nodiscard]] KvPool::Slot* InRam(const KvSequence& sequence, uint32_t block) const {
    return ram_ ? ram_->Find(sequence.id, block) : nullptr;
  }
  // Where a token of a layer that is in RAM has its first vector; the next ones lie kKvBlockTokens
  // vectors apart, in the order of a row.
  [[nodiscard]] uint16_t* RamRow(const KvSequence& sequence, uint32_t layer,
                                 uint32_t position) const;
  void RowsToRam(const KvPool::Slot& slot, const KvSequence& sequence, uint32_t layer,
                 uint32_t n_tokens, const uint16_t* rows) const;
  Status RowsToTail(const KvPool::Slot& slot);
  Result<bool> RowsFromTail(const KvSequence& sequence, KvPool::Slot* slot);
  Status StoreFromRam(const KvSequence& sequence, std::span<const int32_t> tokens);
  Status StoreBlocks(std::span<const CompleteInRam> blocks);
  void ReleaseWritten(uint64_t bytes);
  Status ReturnToTail(const KvSequence& sequence, uint32_t n_tokens);
  Status RecordBlocks(const KvSequence& sequence, std::span<const int32_t> tokens);
  void MakeRoomOnDisk(uint64_t wanted);
  Status MakeRoomInQuota(uint64_t wanted);
  Status RemoveTail(uint64_t sequence, uint32_t n_tokens);
  void MarkPending(const KvSequence& sequence, std::span<const int32_t> tokens);
  Status DropPending(uint64_t sequence);
  Status WithRoom(const std::function<Status()>& write);
  Result<uint32_t> Evict(uint32_t n_blocks);
  [[nodiscard]] bool InUse(const KvBlockName& name) const;

  LmdbEnv& env_;
  const KvShape shape_;
  const uint64_t quota_bytes_;
  std::unique_ptr<KvBlockIndex> index_;
  MDB_dbi tails_ = 0;
  uint64_t next_sequence_ = 1;
  uint64_t prefix_hit_tokens_ = 0;
  uint64_t evicted_blocks_ = 0;
  std::unordered_map<KvBlockName, uint32_t, KvBlockNameHash> users_;  // of open sequences' blocks
  std::vector<Pending> pending_;
  std::unique_ptr<KvPool> ram_;  // null: no RAM
  uint64_t written_bytes_ = 0;   // from RAM, since page cache was released
  bool release_again_ = false;   // pages were dirty then
  uint64_t kept_bytes_ = 0;      // of the file's page cache, then
};

}  // namespace thimble
