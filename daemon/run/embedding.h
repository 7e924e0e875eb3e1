// The embedding stage: the rows of a pass's tokens (and positions), read some at once past the page
// cache, or taken from the resident tiles of a tied output matrix. It can stop after some rows and
// go on later. Called by: the runner. Memory: these rows as they are read, in the stage's work
// buffer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "daemon/plan/values.h"
#include "daemon/run/attention.h"
#include "daemon/run/stage_math.h"
#include "daemon/run/tile_ring.h"
#include "storage/base/status.h"
#include "storage/weight_reader.h"

namespace thimble {

class EmbeddingWalk {
 public:
  // All must outlive it.
  EmbeddingWalk(const Model& model, const Plan& plan, WeightReader& reader, TileRing& ring)
      : model_(model), plan_(plan), reader_(reader), ring_(ring) {}

  void Begin() { row_ = 0; }
  // Some rows more, into b.x; true when all of the pass's are there. Errors: the reader's, with the
  // tensor's name.
  Result<bool> Step(const StageBuffers& b, std::span<const ActiveItem> items);

 private:
  // A row of the pass, on its way.
  struct Row {
    struct Source {
      const TensorInfo* tensor = nullptr;
      uint32_t ticket = 0;
      bool pending = false;
      const std::byte* bytes = nullptr;  // once it has arrived
    };
    uint32_t row = 0;
    std::array<Source, kMostEmbedReads> sources;  // token, position
  };

  const std::byte* Resident(uint64_t token);
  Status Start(const StageBuffers& b, uint32_t row, int32_t token, uint32_t position);
  // Waits for all that was started, whatever fails, and computes them.
  Status Finish(const StageBuffers& b, Status status);

  const Model& model_;
  const Plan& plan_;
  WeightReader& reader_;
  TileRing& ring_;
  uint32_t row_ = 0;
  std::array<Row, kEmbedRowsTogether> rows_;
  uint32_t n_rows_ = 0;  // of them, started
};

}  // namespace thimble
