// `thimble plan`: the daemon's plan, or (offline_plan.cc) that of a model file under a ceiling.
#include <cstdio>
#include <utility>
#include <vector>

#include "client/client.h"
#include "client/common.h"
#include "client/plan_view.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// Every stage and group, in as many calls as it takes.
Result<v1::GetPlanResponse> WholePlan(Client& client) {
  v1::GetPlanRequest request;
  THIMBLE_ASSIGN_OR_RETURN(v1::GetPlanResponse plan, client.GetPlan(request));
  while (static_cast<uint32_t>(plan.stages_size()) < plan.stages_total()) {
    request.set_first_stage(static_cast<uint32_t>(plan.stages_size()));
    THIMBLE_ASSIGN_OR_RETURN(const v1::GetPlanResponse more, client.GetPlan(request));
    if (more.stages_size() == 0) return DataLossError("read the plan: it ends too early");
    plan.mutable_stages()->MergeFrom(more.stages());
    for (const v1::PlanGroup& group : more.groups()) {
      // The first one may have begun on the page before.
      if (plan.groups_size() == 0 || group.index() > plan.groups().rbegin()->index()) {
        *plan.add_groups() = group;
      }
    }
  }
  return plan;
}

std::string GroupName(const v1::GetPlanResponse& plan, const v1::PlanGroup& group) {
  const auto name = [&](uint32_t index) {
    const v1::PlanStage& stage = plan.stages(static_cast<int>(index));
    const bool has_head = plan.granularity() == "head" && stage.head_end() > stage.head_begin();
    return StageText(stage.kind(), stage.has_layer() ? static_cast<int64_t>(stage.layer()) : -1,
                     has_head ? static_cast<int64_t>(stage.head_begin()) : -1);
  };
  std::string first = name(group.stage_begin());
  if (group.stage_end() - group.stage_begin() == 1) return first;
  return first + " ... " + name(group.stage_end() - 1);
}

Result<PlanView> PlanOfDaemon(Client& client) {
  THIMBLE_ASSIGN_OR_RETURN(const v1::GetModelResponse model, client.GetModel());
  THIMBLE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client.GetStatus());
  THIMBLE_ASSIGN_OR_RETURN(const v1::GetPlanResponse plan, WholePlan(client));
  PlanView view;
  view.model = model.name();
  view.architecture = model.architecture();
  view.layers = model.layers();
  if (status.ceiling_bytes() > 0) view.ceiling = FormatBytes(status.ceiling_bytes());
  view.granularity = plan.granularity();
  view.budget_bytes = plan.budget_bytes();
  view.spare_bytes = plan.spare_bytes();
  view.stages = plan.stages_total();
  view.rows = plan.rows();
  view.shared_prompt_rows = plan.shared_prompt_rows();
  view.tile_bytes = plan.tile_bytes();
  view.ring_bytes = plan.ring_bytes();
  view.values_bytes = plan.values_bytes();
  view.resident_bytes = plan.resident_bytes();
  view.kv_bytes = plan.kv_bytes();
  view.peak_bytes = plan.peak_bytes();
  view.model_bytes = plan.model_bytes();
  view.pass_bytes = plan.pass_bytes();
  for (const v1::PlanGroup& group : plan.groups()) {
    if (group.stage_begin() >= group.stage_end() || group.stage_end() > plan.stages_total()) {
      return DataLossError("read the plan: group " + std::to_string(group.index()) +
                           " is not of its stages");
    }
    view.groups.push_back({GroupName(plan, group), group.stage_end() - group.stage_begin(),
                           group.weight_bytes(), group.activation_bytes(), group.kv_bytes(),
                           group.total_bytes()});
  }
  return view;
}

}  // namespace

int RunPlanCommand(const std::string& connect, const PlanCommand& command) {
  std::optional<Result<PlanView>> plan;
  if (command.model.empty()) {
    int exit_code = kExitOk;
    std::optional<Client> client = ConnectOrExplain(connect, command.json, &exit_code);
    if (!client) return exit_code;
    plan = PlanOfDaemon(*client);
  } else {
    plan = PlanOffline(command);
  }
  if (!plan->ok()) {
    PrintError(plan->status(), command.json);
    return kExitFailed;
  }
  (void)std::printf("%s",
                    command.json ? (PlanJson(**plan) + "\n").c_str() : PlanText(**plan).c_str());
  return kExitOk;
}

}  // namespace thimble
