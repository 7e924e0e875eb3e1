#include "daemon/run/kv_reads.h"

#include <algorithm>
#include <utility>

namespace thimble {

Result<std::unique_ptr<KvReads>> KvReads::Open(const Plan& plan, KvCache& kv,
                                               ReaderBackend backend) {
  THIMBLE_ASSIGN_OR_RETURN(auto file, OpenFile(kv.env().DataFile()));
  auto opened = WeightReader::Open(*file, backend, {});
  if (!opened.ok()) opened = WeightReader::Open(*file, ReaderBackend::kAuto, {});
  THIMBLE_ASSIGN_OR_RETURN(auto reader, std::move(opened));
  return std::make_unique<KvReads>(plan, kv, std::move(file), std::move(reader));
}

KvReads::KvReads(const Plan& plan, KvCache& kv, std::unique_ptr<RandomAccessFile> file,
                 std::unique_ptr<WeightReader> reader)
    : kv_(kv),
      layer_bytes_(kv.shape().BlockHalves() * sizeof(uint16_t)),
      pitch_(KvLayerFileBytes(kv.shape())),
      file_(std::move(file)),
      reader_(std::move(reader)) {
  if (!KvLayerHasOwnPages(kv.shape()) || pitch_ + kReadAlignment > plan.ring_bytes / 2) return;
  for (uint32_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    // Where heads are computed by themselves, the other ones' blocks come from the map.
    if (stage.kind != StageKind::kAttention || stage.head_begin != 0) continue;
    attentions_.push_back({s, stage.tile_begin, stage.layer});
  }
}

void KvReads::BeginPass(std::span<const ActiveItem> items, uint32_t last_stage) {
  items_ = items;
  n_attentions_ = 0;
  while (n_attentions_ < attentions_.size() && attentions_[n_attentions_].stage <= last_stage) {
    ++n_attentions_;
  }
  active_ = n_attentions_ > 0 && std::ranges::any_of(items, [this](const ActiveItem& active) {
              return kv_.HasBlocksOutsideRam(*active.item.sequence);
            });
  const bool same = std::ranges::equal(
      items, sequences_, {}, [](const ActiveItem& active) { return active.item.sequence->id; });
  if (!same) {
    sequences_.clear();
    for (const ActiveItem& active : items) sequences_.push_back(active.item.sequence->id);
  }
  found_ = false;
  if (!std::exchange(begun_ahead_, false)) {
    next_ = {};
    return;
  }
  next_.round = 0;
  // Of a layer that was begun for other items the rest comes from the map.
  if (!same && (next_.item > 0 || next_.block > 0)) NextAttention();
}

void KvReads::StartOver() {
  next_ = {};
  found_ = false;
  begun_ahead_ = false;
}

void KvReads::StartAt(uint32_t tile) {
  while (next_.round == 0 && next_.attention < n_attentions_ &&
         attentions_[next_.attention].tile < tile) {
    NextAttention();
  }
}

void KvReads::Reach(uint32_t tile) {
  if (active_) StartAt(tile + 1);
}

void KvReads::NextAttention() {
  next_ = {next_.round, next_.attention + 1, 0, 0};
  found_ = false;
}

std::optional<uint64_t> KvReads::OffsetAt(const Position& at, uint32_t block) {
  KvSequence& sequence = *items_[at.item].item.sequence;
  if (block >= sequence.blocks.size()) return std::nullopt;
  return kv_.FileOffset(sequence, attentions_[at.attention].layer, block);
}

bool KvReads::Before(uint32_t round, uint32_t tile) {
  if (!active_) return false;
  while (next_.round <= round) {
    if (next_.attention >= n_attentions_) {
      if (next_.round == 1) return false;
      next_ = {1, 0, 0, 0};
      found_ = false;
      continue;
    }
    if (next_.round == round && attentions_[next_.attention].tile > tile) return false;
    if (next_.item >= items_.size()) {
      NextAttention();
      continue;
    }
    const ActiveItem& active = items_[next_.item];
    // Rows of the tail, and blocks of this pass, were written a moment ago.
    if (active.dropped || next_.block >= active.item.sequence->blocks.size()) {
      ++next_.item;
      next_.block = 0;
      found_ = false;
      continue;
    }
    if (found_) return true;
    if (const std::optional<uint64_t> offset = OffsetAt(next_, next_.block)) {
      offset_ = *offset;
      n_together_ = 0;
      found_ = true;
      return true;
    }
    ++next_.block;
  }
  return false;
}

KvReads::Run KvReads::Next(uint64_t most_bytes) {
  most_bytes = std::min(most_bytes, kMostTogetherBytes);
  uint32_t& n = n_together_;
  if (n == 0) {
    n = 1;
    while ((n + 1) * pitch_ <= most_bytes &&
           OffsetAt(next_, next_.block + n) == offset_ + n * pitch_) {
      ++n;
    }
  }
  const KvSequence& sequence = *items_[next_.item].item.sequence;
  return {{sequence.id, attentions_[next_.attention].layer, next_.block}, n, offset_};
}

void KvReads::Begun(const Run& run) {
  next_.block += run.n;
  found_ = false;
  begun_ahead_ = next_.round == 1;
}

uint32_t KvReads::NextCut(uint32_t tile) const {
  if (!active_) return UINT32_MAX;
  for (uint32_t a = 0; a < n_attentions_; ++a) {
    if (attentions_[a].tile > tile) return attentions_[a].tile;
  }
  return UINT32_MAX;
}

}  // namespace thimble
