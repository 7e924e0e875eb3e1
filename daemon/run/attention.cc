#include "daemon/run/attention.h"

#include <algorithm>
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
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  const uint32_t per_kv = QueriesPerKvHead(model);
  auto* scratch = reinterpret_cast<uint16_t*>(b.work + b.layout.kv_block);
  AttentionState* states = States(b);

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
  const uint32_t n_heads = head_end - head_;
  const auto attend = [&](uint32_t head, uint32_t row, size_t n, size_t step, size_t n_tokens) {
    const size_t at = size_t{head - b.stage->head_begin} * b.rows + active.first_row + row;
    AttendBlock({.q = b.q + at * head_dim,
                 .states = &states[at],
                 .acc = b.att + at * head_dim,
                 .n = n,
                 .step = step},
                kv.keys, kv.values, n_tokens, head_dim, scale);
    *work += n * 2 * n_tokens * head_dim;
  };
  // Rows at positions before this block do not see it, and those in it see what is before them.
  uint32_t row = first_token > sequence.n_tokens ? first_token - sequence.n_tokens : 0;
  const auto tokens_seen = [&](uint32_t at) {
    return std::min(kKvBlockTokens, sequence.n_tokens + at + 1 - first_token);
  };
  for (; row < n_new && (tokens_seen(row) < kKvBlockTokens || n_new - row < n_heads); ++row) {
    attend(head_, row, n_heads, b.rows, tokens_seen(row));
  }
  // Many rows that see all of it go together, head by head.
  for (uint32_t h = head_; row < n_new && h < head_end; ++h) {
    attend(h, row, n_new - row, 1, kKvBlockTokens);
  }
  head_ = head_end;
  return {};
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
