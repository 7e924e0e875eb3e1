#include "daemon/http/events.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>
#include <string_view>

namespace thimble {
namespace {

namespace json = boost::json;

// The data of the one event of that name that `event` is.
json::object Data(std::string_view name, const std::string& event) {
  const std::string start = "event: " + std::string(name) + "\ndata: ";
  EXPECT_TRUE(event.starts_with(start)) << event;
  EXPECT_TRUE(event.ends_with("\n\n"));
  const std::string data = event.substr(start.size(), event.size() - start.size() - 2);
  EXPECT_EQ(data.find_first_of("\r\n"), std::string::npos) << "a line break ends the data";
  json::error_code error;
  json::value value = json::parse(data, error);
  EXPECT_FALSE(error) << error.message() << ": " << data;
  return value.is_object() ? value.as_object() : json::object();
}

// Two heads of one layer, each with a tile of 100 bytes of which the first stays, and the logits.
Plan TwoHeads() {
  Plan plan;
  plan.tiles.resize(3);
  for (Tile& tile : plan.tiles) tile.bytes = 100;
  plan.tiles[0].resident_offset = 4096;
  const auto stage = [&](StageKind kind, uint32_t tile_begin, uint32_t tile_end, uint32_t group) {
    Stage s;
    s.kind = kind;
    s.tile_begin = tile_begin;
    s.tile_end = tile_end;
    s.weight_bytes = uint64_t{100} * (tile_end - tile_begin);
    s.group = group;
    plan.stages.push_back(s);
  };
  stage(StageKind::kQkv, 0, 1, 0);
  stage(StageKind::kQkv, 1, 2, 1);
  stage(StageKind::kLogits, 2, 3, 2);
  return plan;
}

TEST(Events, ThePlanTellsHeadsOfALayerAsOnePart) {
  DaemonStatus status;
  status.model_name = "two\nlines";
  const json::object plan = Data("plan", PlanEvent(TwoHeads(), status));
  EXPECT_EQ(plan.at("model"), "two\nlines");
  EXPECT_EQ(plan.at("stages"), 3);
  EXPECT_EQ(plan.at("kinds").as_array().size(), kStageKinds);
  const json::array want = {
      {static_cast<int>(StageKind::kQkv), 0, 0, 2, 200, 100, 0},
      {static_cast<int>(StageKind::kLogits), 0, 2, 1, 100, 0, 2},
  };
  EXPECT_EQ(json::serialize(plan.at("parts")), json::serialize(want));
}

TEST(Events, TheStatusHasEveryFigureOfThePage) {
  DaemonStatus status;
  status.memory.current = uint64_t{1} << 40;
  status.owners = {.program = 1, .work = 2, .resident = 3, .page_cache = 4, .kernel = 5};
  status.requests.first_token_seconds.Observe(0.02);
  status.stage_seconds[0].Observe(0.5);
  const json::object told = Data("status", StatusEvent(status, "the engine is stuck"));
  EXPECT_EQ(told.at("not_ready"), "the engine is stuck");
  EXPECT_EQ(told.at("current"), uint64_t{1} << 40);
  EXPECT_EQ(told.at("owners"), (json::array{1, 2, 3, 4, 5}));
  EXPECT_EQ(told.at("first_token").as_array().size(), Histogram::kBounds.size() + 1);
  EXPECT_EQ(told.at("first_token").at(4), 1);
  EXPECT_EQ(told.at("kind_seconds").at(0), 0.5);
}

}  // namespace
}  // namespace thimble
