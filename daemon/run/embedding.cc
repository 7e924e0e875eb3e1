#include "daemon/run/embedding.h"

#include <algorithm>
#include <utility>

namespace thimble {
namespace {

// 16 random reads take some milliseconds on a slow card.
constexpr uint32_t kRowsPerStep = 16;

Status Named(const Status& error, const TensorInfo& tensor) {
  return {error.code(), "read " + tensor.name + ": " + error.message()};
}

}  // namespace

const std::byte* EmbeddingWalk::Resident(uint64_t token) {
  if (model_.output.tensor != model_.token_embedding || model_.output.row_begin != 0) {
    return nullptr;
  }
  const Stage& logits = plan_.stages[plan_.stages.size() - 2];
  for (uint32_t t = logits.tile_begin; t < logits.tile_end; ++t) {
    const Tile& tile = plan_.tiles[t];
    if (tile.bias || token < tile.out_begin || token >= tile.out_begin + tile.outputs) continue;
    const std::byte* bytes = ring_.Resident(t);
    if (bytes == nullptr) return nullptr;
    return bytes + (token - tile.out_begin) * (tile.bytes / tile.outputs);
  }
  return nullptr;
}

Status EmbeddingWalk::Start(const StageBuffers& b, uint32_t row, int32_t token, uint32_t position) {
  Row& here = rows_[n_rows_++];
  here = {};
  here.row = row;
  here.sources[0] = {.tensor = model_.token_embedding,
                     .bytes = Resident(static_cast<uint64_t>(token))};
  here.sources[1] = {.tensor = model_.position_embedding};
  const std::array<uint64_t, kMostEmbedReads> rows_of = {static_cast<uint64_t>(token), position};
  for (size_t i = 0; i < here.sources.size(); ++i) {
    Row::Source& source = here.sources[i];
    if (source.tensor == nullptr || source.bytes != nullptr) continue;
    const uint64_t row_bytes = RowBytes(source.tensor->type, source.tensor->columns);
    const uint64_t offset = source.tensor->offset + rows_of[i] * row_bytes;
    const size_t at = (n_rows_ - 1) * EmbedReads(model_) + i;
    std::byte* buffer = b.work + at * b.layout.read_bytes;
    const Result<uint32_t> ticket = reader_.Start(offset, row_bytes, buffer);
    if (!ticket.ok()) return Named(ticket.status(), *source.tensor);
    source.ticket = *ticket;
    source.pending = true;
    source.bytes = buffer + offset % kReadAlignment;
  }
  return {};
}

Status EmbeddingWalk::Finish(const StageBuffers& b, Status status) {
  const uint32_t n = std::exchange(n_rows_, 0);
  for (uint32_t i = 0; i < n; ++i) {
    for (Row::Source& source : rows_[i].sources) {
      if (!std::exchange(source.pending, false)) continue;
      const Status read = reader_.Wait(source.ticket);
      if (status.ok() && !read.ok()) status = Named(read, *source.tensor);
    }
    if (!status.ok()) continue;
    EmbedRow(model_, rows_[i].sources[0].bytes, rows_[i].sources[1].bytes,
             reinterpret_cast<float*>(b.work + b.layout.row),
             b.x + rows_[i].row * model_.hidden_size);
  }
  return status;
}

Result<bool> EmbeddingWalk::Step(const StageBuffers& b, std::span<const ActiveItem> items) {
  const uint32_t end = std::min(b.rows, row_ + kRowsPerStep);
  Status status;
  reader_.BeginBatch();
  for (const ActiveItem& active : items) {
    if (active.dropped) continue;
    const auto n = static_cast<uint32_t>(active.item.tokens.size());
    for (uint32_t i = 0; i < n && status.ok(); ++i) {
      const uint32_t row = active.first_row + i;
      if (row < row_ || row >= end) continue;
      if (n_rows_ == rows_.size()) status = Finish(b, status);
      if (!status.ok()) break;
      status = Start(b, row, active.item.tokens[i], active.item.Position(i));
    }
  }
  reader_.EndBatch();
  THIMBLE_RETURN_IF_ERROR(Finish(b, status));
  row_ = end;
  return end == b.rows;
}

}  // namespace thimble
