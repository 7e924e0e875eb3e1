// `thimble plan --model`: the plan of a model under a ceiling, without a daemon.
#include <algorithm>
#include <string>

#include "client/offline.h"
#include "client/plan_view.h"
#include "daemon/model/model.h"
#include "daemon/plan/plan.h"
#include "storage/kv_pool.h"

namespace thimble {
namespace {

// "qkv", "qkv head 3", "attention_norm ... ffn".
std::string GroupName(const Plan& plan, const Group& group) {
  const auto name = [&](const Stage& stage) {
    const bool has_layer = stage.kind != StageKind::kEmbed && stage.kind < StageKind::kFinalNorm;
    const bool has_head = plan.options.granularity == Granularity::kHead &&
                          (stage.kind == StageKind::kQkv || stage.kind == StageKind::kAttention);
    return StageText(std::string(StageKindName(stage.kind)),
                     has_layer ? static_cast<int64_t>(stage.layer) : -1,
                     has_head ? static_cast<int64_t>(stage.head_begin) : -1);
  };
  std::string first = name(plan.stages[group.stage_begin]);
  if (group.stage_end - group.stage_begin == 1) return first;
  return first + " ... " + name(plan.stages[group.stage_end - 1]);
}

}  // namespace

Result<PlanView> PlanOffline(const PlanCommand& command) {
  THIMBLE_ASSIGN_OR_RETURN(PlanOptions options,
                           OfflinePlanOptions(command.ram_ceiling, command.granularity, 1, 1));
  SetRows(command.prompt_chunk, command.max_active, command.draft_tokens, &options);
  THIMBLE_ASSIGN_OR_RETURN(const auto file, OpenFile(command.model));
  THIMBLE_ASSIGN_OR_RETURN(const auto model, LoadModel(*file));
  const uint32_t context = command.context_tokens > 0
                               ? command.context_tokens
                               : std::min(model->context_tokens, kDefaultContextTokens);
  const KvShape shape = {model->n_layers, model->n_kv_heads, model->head_dim, KvType::kF16};
  SetKv(KvPool::SlotBytes(shape), command.max_active, context, &options);
  THIMBLE_ASSIGN_OR_RETURN(const Plan plan, MakePlan(*model, options));
  PlanView view;
  view.model = model->name;
  view.architecture = model->architecture;
  view.layers = model->n_layers;
  view.ceiling = command.ram_ceiling;
  view.granularity = GranularityName(plan.options.granularity);
  view.budget_bytes = plan.options.budget_bytes != UINT64_MAX ? plan.options.budget_bytes : 0;
  view.stages = plan.stages.size();
  view.rows = plan.max_rows;
  view.tile_bytes = plan.tile_bytes;
  view.ring_bytes = plan.ring_bytes;
  view.values_bytes = plan.resident_offset - plan.values_offset;
  view.resident_bytes = plan.resident_bytes;
  view.kv_bytes = plan.kv_bytes;
  view.peak_bytes = plan.peak_bytes;
  view.model_bytes = plan.model_bytes;
  view.pass_bytes = plan.pass_bytes;
  for (const Group& group : plan.groups) {
    view.groups.push_back({GroupName(plan, group), group.stage_end - group.stage_begin,
                           group.weight_bytes, group.activation_bytes, group.kv_bytes,
                           group.total_bytes()});
  }
  return view;
}

}  // namespace thimble
