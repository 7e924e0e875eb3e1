// `thimble plan`: prints the plan of a model under a ceiling, without a daemon.
#include <algorithm>
#include <cstdio>
#include <string>

#include "client/commands.h"
#include "client/json_line.h"
#include "client/offline.h"
#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// "qkv", "qkv head 3", "attention_norm ... ffn".
std::string GroupName(const Plan& plan, const Group& group) {
  const Stage& first = plan.stages[group.stage_begin];
  const Stage& last = plan.stages[group.stage_end - 1];
  const auto name = [&](const Stage& stage) {
    std::string text(StageKindName(stage.kind));
    const bool has_layer = stage.kind != StageKind::kEmbed && stage.kind < StageKind::kFinalNorm;
    if (has_layer) text = "layer " + std::to_string(stage.layer) + " " + text;
    if (plan.options.granularity == Granularity::kHead &&
        (stage.kind == StageKind::kQkv || stage.kind == StageKind::kAttention)) {
      text += " head " + std::to_string(stage.head_begin);
    }
    return text;
  };
  if (group.stage_end - group.stage_begin == 1) return name(first);
  return name(first) + " ... " + name(last);
}

void PrintJson(const Model& model, const Plan& plan) {
  std::string groups;
  for (const Group& group : plan.groups) {
    if (!groups.empty()) groups += ",";
    groups += JsonLine()
                  .Add("name", GroupName(plan, group))
                  .Add("stages", group.stage_end - group.stage_begin)
                  .Add("weight_bytes", group.weight_bytes)
                  .Add("activation_bytes", group.activation_bytes)
                  .Add("kv_bytes", group.kv_bytes)
                  .Add("total_bytes", group.total_bytes())
                  .str();
  }
  const bool bounded = plan.options.budget_bytes != UINT64_MAX;
  const std::string line = JsonLine()
                               .Add("model", model.name)
                               .Add("architecture", model.architecture)
                               .Add("granularity", GranularityName(plan.options.granularity))
                               .Add("budget_bytes", bounded ? plan.options.budget_bytes : 0)
                               .Add("stages", plan.stages.size())
                               .Add("rows", plan.max_rows)
                               .Add("tile_bytes", plan.tile_bytes)
                               .Add("ring_bytes", plan.ring_bytes)
                               .Add("resident_bytes", plan.resident_bytes)
                               .Add("peak_bytes", plan.peak_bytes)
                               .Add("model_bytes", plan.model_bytes)
                               .Add("pass_bytes", plan.pass_bytes)
                               .AddRaw("groups", "[" + groups + "]")
                               .str();
  std::printf("%s\n", line.c_str());
}

void PrintText(const Model& model, const Plan& plan, const std::string& ceiling) {
  const auto line = [](const char* name, const std::string& value) {
    std::printf("%-14s %s\n", name, value.c_str());
  };
  line("model", model.name + " (" + model.architecture + ", " + std::to_string(model.n_layers) +
                    " layers, " + FormatBytes(plan.model_bytes) + " of weights a pass)");
  line("ceiling", ceiling.empty() ? "none"
                                  : ceiling + ", of which " +
                                        FormatBytes(plan.options.budget_bytes) + " for buffers");
  line("granularity", std::string(GranularityName(plan.options.granularity)) + ": " +
                          std::to_string(plan.stages.size()) + " stages in " +
                          std::to_string(plan.groups.size()) + " groups");
  line("rows", std::to_string(plan.max_rows) + " a pass at most");
  std::printf("\n%-34s %12s %12s %12s %12s\n", "group", "weights", "activations", "KV", "total");
  for (const Group& group : plan.groups) {
    std::printf("%-34s %12s %12s %12s %12s\n", GroupName(plan, group).c_str(),
                FormatBytes(group.weight_bytes).c_str(),
                FormatBytes(group.activation_bytes).c_str(), FormatBytes(group.kv_bytes).c_str(),
                FormatBytes(group.total_bytes()).c_str());
  }
  std::printf("\n");
  line("ring",
       FormatBytes(plan.ring_bytes) + ", tiles of at most " + FormatBytes(plan.tile_bytes));
  line("buffers", FormatBytes(plan.resident_offset - plan.values_offset) +
                      " for the largest group's activations and KV block");
  line("resident", FormatBytes(plan.resident_bytes) + " of weights stay in RAM");
  line("peak", FormatBytes(plan.peak_bytes) + " (" + std::to_string(plan.peak_bytes) + " bytes)");
  line("flash", FormatBytes(plan.pass_bytes) + " read in every pass");
}

Status Run(const PlanCommand& command) {
  THIMBLE_ASSIGN_OR_RETURN(
      const PlanOptions options,
      OfflinePlanOptions(command.ram_ceiling, command.granularity,
                         std::max(command.prompt_chunk, command.max_active), command.max_active));
  THIMBLE_ASSIGN_OR_RETURN(const auto file, OpenFile(command.model));
  THIMBLE_ASSIGN_OR_RETURN(const auto model, LoadModel(*file));
  THIMBLE_ASSIGN_OR_RETURN(const Plan plan, MakePlan(*model, options));
  if (command.json) {
    PrintJson(*model, plan);
  } else {
    PrintText(*model, plan, command.ram_ceiling);
  }
  return {};
}

}  // namespace

int RunPlanCommand(const PlanCommand& command) {
  const Status status = Run(command);
  if (status.ok()) return kExitOk;
  PrintError(status, command.json);
  return kExitFailed;
}

}  // namespace thimble
