#include "daemon/run/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "daemon/run/kernels.h"

namespace thimble {
namespace {

AttentionState* States(const StageBuffers& b) {
  return reinterpret_cast<AttentionState*>(b.work + b.layout.states);
}

uint32_t HeadsOf(const StageBuffers& b) { return b.stage->head_end - b.stage->head_begin; }

// `n` queries, from that of `head` and `row` on, each `step` behind the one before.
struct Queries {
  uint32_t head = 0;
  uint32_t row = 0;  // of the pass
  size_t n = 0;
  size_t step = 0;
};

void Attend(const StageBuffers& b, const KvHeadBlock& kv, const Queries& queries, size_t n_tokens,
            uint64_t* work) {
  const size_t head_dim = b.model->head_dim;
  const size_t at = size_t{queries.head - b.stage->head_begin} * b.rows + queries.row;
  AttendBlock({.q = b.q + at * head_dim,
               .states = &States(b)[at],
               .acc = b.att + at * head_dim,
               .n = queries.n,
               .step = queries.step},
              kv.keys, kv.values, n_tokens, head_dim,
              1.0F / std::sqrt(static_cast<float>(head_dim)));
  *work += queries.n * 2 * n_tokens * head_dim;
}

}  // namespace

void AttentionWalk::Begin(const StageBuffers& b) {
  const size_t n = size_t{HeadsOf(b)} * b.rows;
  std::memset(b.att, 0, n * b.model->head_dim * sizeof(float));
  std::fill_n(States(b), n, AttentionState{});
  item_ = 0;
  block_ = 0;
  head_ = b.stage->head_begin;
}

Status AttentionWalk::Heads(const StageBuffers& b, const ActiveItem& active,
                            KvCache::Reader& reader, uint64_t* work) {
  const Model& model = *b.model;
  const size_t head_dim = model.head_dim;
  const KvSequence& sequence = *active.item.sequence;
  const auto n_new = static_cast<uint32_t>(active.item.tokens.size());
  const uint32_t n_total = sequence.n_tokens + n_new;
  const uint32_t first_token = block_ * kKvBlockTokens;
  const uint32_t per_kv = QueriesPerKvHead(model);
  auto* scratch = reinterpret_cast<uint16_t*>(b.work + b.layout.kv_block);

  const uint32_t kv_head = head_ / per_kv;
  const uint32_t head_end = std::min(b.stage->head_end, (kv_head + 1) * per_kv);
  KvHeadBlock kv;
  // Quantized vectors are put at the end of the work buffer, where becoming halves can't overtake
  // them.
  const size_t spare = 2 * kKvBlockTokens * (head_dim - b.kv_vector);
  THIMBLE_RETURN_IF_ERROR(reader.Head(sequence, active.item.tokens, b.stage->layer, block_, n_total,
                                      kv_head, scratch + spare, &kv));
  if (b.kv_type == KvType::kQ8_0) {
    const size_t n_known = std::min<size_t>(kKvBlockTokens, n_total - first_token);
    uint16_t* values = scratch + kKvBlockTokens * head_dim;
    Q8ToHalf(kv.keys, n_known * head_dim, scratch);
    Q8ToHalf(kv.values, n_known * head_dim, values);
    kv = {scratch, values};
  }
  const HeadBlock block{head_, head_end, first_token, kv};
  if (active.item.drafts != nullptr && first_token + kKvBlockTokens > sequence.n_tokens) {
    TreeRows(b, active, reader, block, work);
  } else {
    Rows(b, active, block, work);
  }
  head_ = head_end;
  return {};
}

void AttentionWalk::Rows(const StageBuffers& b, const ActiveItem& active, const HeadBlock& block,
                         uint64_t* work) const {
  const KvSequence& sequence = *active.item.sequence;
  const auto n_new = static_cast<uint32_t>(active.item.tokens.size());
  const uint32_t n_heads = block.head_end - block.head_begin;
  // Rows at positions before this block do not see it, and those in it see what is before them.
  uint32_t row = block.first_token > sequence.n_tokens ? block.first_token - sequence.n_tokens : 0;
  const auto tokens_seen = [&](uint32_t at) {
    return std::min(kKvBlockTokens, sequence.n_tokens + at + 1 - block.first_token);
  };
  for (; row < n_new && (tokens_seen(row) < kKvBlockTokens || n_new - row < n_heads); ++row) {
    Attend(b, block.kv, {block.head_begin, active.first_row + row, n_heads, b.rows},
           tokens_seen(row), work);
  }
  // Many rows that see all of it go together, head by head.
  for (uint32_t h = block.head_begin; row < n_new && h < block.head_end; ++h) {
    Attend(b, block.kv, {h, active.first_row + row, n_new - row, 1}, kKvBlockTokens, work);
  }
}

// Rows lie one behind the other in the cache, wherever their positions are. For each one the block
// is put together in the work buffer as it would be if its ancestors were the text already, so that
// the sums are the same.
void AttentionWalk::TreeRows(const StageBuffers& b, const ActiveItem& active,
                             const KvCache::Reader& reader, const HeadBlock& block,
                             uint64_t* work) const {
  constexpr uint32_t kNobody = UINT32_MAX;
  const size_t head_dim = b.model->head_dim;
  const PassItem& item = active.item;
  const uint32_t n_text = item.sequence->n_tokens;
  const uint32_t first = block.first_token;
  const uint32_t kv_head = block.head_begin / QueriesPerKvHead(*b.model);
  auto* keys = reinterpret_cast<uint16_t*>(b.work + b.layout.kv_block);
  uint16_t* values = keys + kKvBlockTokens * head_dim;
  if (n_text > first && block.kv.keys != keys) {
    std::memcpy(keys, block.kv.keys, (n_text - first) * head_dim * sizeof(uint16_t));
    std::memcpy(values, block.kv.values, (n_text - first) * head_dim * sizeof(uint16_t));
  }
  std::array<uint32_t, kKvBlockTokens> placed{};  // which row is at each place
  placed.fill(kNobody);
  const auto place = [&](uint32_t row, uint32_t at) {
    if (std::exchange(placed[at], row) == row) return;
    const KvHeadBlock kv = reader.Row(*item.sequence, b.stage->layer, row, kv_head);
    if (b.kv_type == KvType::kQ8_0) {
      Q8ToHalf(kv.keys, head_dim, keys + at * head_dim);
      Q8ToHalf(kv.values, head_dim, values + at * head_dim);
    } else {
      std::memcpy(keys + at * head_dim, kv.keys, head_dim * sizeof(uint16_t));
      std::memcpy(values + at * head_dim, kv.values, head_dim * sizeof(uint16_t));
    }
  };
  for (uint32_t row = 0; row < item.tokens.size(); ++row) {
    const uint32_t position = item.Position(row);
    if (position < first) continue;
    for (uint32_t at = row; item.Position(at) >= first; at = item.drafts->Parent(at)) {
      if (item.Position(at) < first + kKvBlockTokens) place(at, item.Position(at) - first);
      if (at == 0) break;
    }
    Attend(b, {keys, values},
           {block.head_begin, active.first_row + row, block.head_end - block.head_begin, b.rows},
           std::min(kKvBlockTokens, position + 1 - first), work);
  }
}

void AttentionWalk::Finish(const StageBuffers& b) {
  const size_t head_dim = b.model->head_dim;
  const AttentionState* states = States(b);
  for (size_t at = 0; at < size_t{HeadsOf(b)} * b.rows; ++at) {
    // Rows of a dropped item may have seen nothing: their zeros stay.
    if (states[at].sum == 0.0F) continue;
    FinishAttention(states[at], b.att + at * head_dim, head_dim, b.att + at * head_dim);
  }
}

Result<bool> AttentionWalk::Step(const StageBuffers& b, std::span<const ActiveItem> items,
                                 KvCache& kv, KvSource& source, uint64_t work_limit) {
  THIMBLE_ASSIGN_OR_RETURN(KvCache::Reader reader, KvCache::Reader::Begin(kv, &source));
  uint64_t work = 0;
  while (item_ < items.size()) {
    const ActiveItem& active = items[item_];
    const uint64_t n_total =
        active.dropped ? 0 : active.item.sequence->n_tokens + active.item.tokens.size();
    while (uint64_t{block_} * kKvBlockTokens < n_total) {
      while (head_ < b.stage->head_end) {
        if (work >= work_limit) return false;
        THIMBLE_RETURN_IF_ERROR(Heads(b, active, reader, &work));
      }
      head_ = b.stage->head_begin;
      ++block_;
    }
    head_ = b.stage->head_begin;  // one that was dropped may have been in the middle
    block_ = 0;
    ++item_;
  }
  Finish(b);
  return true;
}

}  // namespace thimble
