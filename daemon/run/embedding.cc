#include "daemon/run/embedding.h"

#include <algorithm>
#include <array>

#include "daemon/plan/values.h"

namespace thimble {
namespace {

// 16 random reads take some milliseconds on a slow card.
constexpr uint32_t kRowsPerStep = 16;

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

Status EmbeddingWalk::ReadRow(const StageBuffers& b, uint32_t row, int32_t token,
                              uint32_t position) {
  struct Source {
    const TensorInfo* tensor;
    uint64_t row;
    const std::byte* bytes = nullptr;
    uint32_t ticket = 0;
  };
  std::array<Source, kEmbedReads> sources = {
      Source{model_.token_embedding, static_cast<uint64_t>(token)},
      Source{model_.position_embedding, position}};
  sources[0].bytes = Resident(sources[0].row);
  for (size_t i = 0; i < sources.size(); ++i) {
    Source& source = sources[i];
    if (source.tensor == nullptr || source.bytes != nullptr) continue;
    const uint64_t row_bytes = RowBytes(source.tensor->type, source.tensor->columns);
    const uint64_t offset = source.tensor->offset + source.row * row_bytes;
    std::byte* buffer = b.work + i * b.layout.read_bytes;
    Result<uint32_t> ticket = reader_.Start(offset, row_bytes, buffer);
    Status status;
    if (ticket.ok()) {
      source.bytes = buffer + offset % kReadAlignment;
      status = reader_.Wait(*ticket);
    } else {
      status = ticket.status();
    }
    if (!status.ok()) {
      return {status.code(), "read " + source.tensor->name + ": " + status.message()};
    }
  }
  EmbedRow(model_, sources[0].bytes, sources[1].bytes,
           reinterpret_cast<float*>(b.work + b.layout.row), b.x + row * model_.hidden_size);
  return {};
}

Result<bool> EmbeddingWalk::Step(const StageBuffers& b, std::span<const ActiveItem> items) {
  const uint32_t end = std::min(b.rows, row_ + kRowsPerStep);
  for (const ActiveItem& active : items) {
    if (active.dropped) continue;
    const auto n = static_cast<uint32_t>(active.item.tokens.size());
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t row = active.first_row + i;
      if (row < row_ || row >= end) continue;
      THIMBLE_RETURN_IF_ERROR(
          ReadRow(b, row, active.item.tokens[i], active.item.sequence->n_tokens + i));
    }
  }
  row_ = end;
  return end == b.rows;
}

}  // namespace thimble
