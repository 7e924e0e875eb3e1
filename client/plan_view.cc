#include "client/plan_view.h"

#include <algorithm>
#include <cstdio>

#include "client/json_line.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

void AddLine(std::string& text, const char* name, const std::string& value) {
  char label[24];
  (void)std::snprintf(static_cast<char*>(label), sizeof label, "%-14s ", name);
  text += static_cast<const char*>(label) + value + "\n";
}

void AddRow(std::string& text, size_t width, const std::string& name, const std::string& weights,
            const std::string& activations, const std::string& kv, const std::string& total) {
  char row[160];
  (void)std::snprintf(static_cast<char*>(row), sizeof row, " %12s %12s %12s %12s\n",
                      weights.c_str(), activations.c_str(), kv.c_str(), total.c_str());
  text +=
      name + std::string(width - std::min(width, name.size()), ' ') + static_cast<const char*>(row);
}

}  // namespace

std::string StageText(const std::string& kind, int64_t layer, int64_t head) {
  std::string text = kind;
  if (layer >= 0) text = "layer " + std::to_string(layer) + " " + text;
  if (head >= 0) text += " head " + std::to_string(head);
  return text;
}

std::string PlanJson(const PlanView& plan) {
  std::string groups;
  for (const PlanView::Group& group : plan.groups) {
    if (!groups.empty()) groups += ",";
    groups += JsonLine()
                  .Add("name", group.name)
                  .Add("stages", group.stages)
                  .Add("weight_bytes", group.weight_bytes)
                  .Add("activation_bytes", group.activation_bytes)
                  .Add("kv_bytes", group.kv_bytes)
                  .Add("total_bytes", group.total_bytes)
                  .str();
  }
  JsonLine line;
  line.Add("model", plan.model)
      .Add("architecture", plan.architecture)
      .Add("granularity", plan.granularity)
      .Add("budget_bytes", plan.budget_bytes)
      .Add("spare_bytes", plan.spare_bytes)
      .Add("stages", plan.stages)
      .Add("rows", plan.rows);
  if (plan.shared_prompt_rows > 0) line.Add("shared_prompt_rows", plan.shared_prompt_rows);
  return line.Add("tile_bytes", plan.tile_bytes)
      .Add("ring_bytes", plan.ring_bytes)
      .Add("values_bytes", plan.values_bytes)
      .Add("resident_bytes", plan.resident_bytes)
      .Add("kv_bytes", plan.kv_bytes)
      .Add("peak_bytes", plan.peak_bytes)
      .Add("model_bytes", plan.model_bytes)
      .Add("pass_bytes", plan.pass_bytes)
      .AddRaw("groups", "[" + groups + "]")
      .str();
}

std::string PlanText(const PlanView& plan) {
  std::string text;
  AddLine(text, "model",
          plan.model + " (" + plan.architecture + ", " + std::to_string(plan.layers) + " layers, " +
              FormatBytes(plan.model_bytes) + " of weights a pass)");
  std::string ceiling = "none";
  if (!plan.ceiling.empty()) {
    ceiling = plan.ceiling + ", of which " + FormatBytes(plan.budget_bytes) + " for buffers";
    if (plan.spare_bytes > 0) {
      ceiling += " and up to " + FormatBytes(plan.spare_bytes) + " more while its group has room";
    }
  }
  AddLine(text, "ceiling", ceiling);
  AddLine(text, "granularity",
          plan.granularity + ": " + std::to_string(plan.stages) + " stages in " +
              std::to_string(plan.groups.size()) + " groups");
  std::string rows = std::to_string(plan.rows) + " a pass at most";
  if (plan.shared_prompt_rows > 0 && plan.shared_prompt_rows < plan.rows) {
    rows += ", " + std::to_string(plan.shared_prompt_rows) +
            " of a prompt while tokens of others wait for it";
  }
  AddLine(text, "rows", rows);
  text += "\n";
  size_t width = 34;
  for (const PlanView::Group& group : plan.groups) width = std::max(width, group.name.size());
  AddRow(text, width, "group", "weights", "activations", "KV", "total");
  for (const PlanView::Group& group : plan.groups) {
    AddRow(text, width, group.name, FormatBytes(group.weight_bytes),
           FormatBytes(group.activation_bytes), FormatBytes(group.kv_bytes),
           FormatBytes(group.total_bytes));
  }
  text += "\n";
  AddLine(text, "ring",
          FormatBytes(plan.ring_bytes) + ", tiles of at most " + FormatBytes(plan.tile_bytes));
  AddLine(text, "buffers",
          FormatBytes(plan.values_bytes) + " for the largest group's activations and KV block");
  AddLine(text, "resident", FormatBytes(plan.resident_bytes) + " of weights stay in RAM");
  AddLine(text, "keys, values",
          "up to " + FormatBytes(plan.kv_bytes) + ", for which resident weights give way");
  AddLine(text, "peak",
          FormatBytes(plan.peak_bytes) + " (" + std::to_string(plan.peak_bytes) + " bytes)");
  AddLine(text, "flash", FormatBytes(plan.pass_bytes) + " read in every pass");
  return text;
}

}  // namespace thimble
