#include "daemon/rpc/answers.h"

#include <algorithm>
#include <map>
#include <string>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/message.h"
#include "daemon/rpc/utf8.h"

namespace thimble {
namespace {

constexpr uint32_t kMaxStages = 1024;  // in one answer: 60 KiB

bool HasLayer(const Stage& stage) {
  return stage.kind > StageKind::kEmbed && stage.kind < StageKind::kFinalNorm;
}

void AddStage(const Plan& plan, const Stage& stage, v1::GetPlanResponse* response) {
  v1::PlanStage& m = *response->add_stages();
  m.set_kind(std::string(StageKindName(stage.kind)));
  if (HasLayer(stage)) m.set_layer(stage.layer);
  m.set_head_begin(stage.head_begin);
  m.set_head_end(stage.head_end);
  m.set_weight_bytes(stage.weight_bytes);
  uint64_t resident = 0;
  for (uint32_t i = stage.tile_begin; i < stage.tile_end; ++i) {
    if (plan.tiles[i].resident()) resident += plan.tiles[i].bytes;
  }
  m.set_resident_weight_bytes(resident);
  m.set_group(stage.group);
}

void AddGroup(const Plan& plan, uint32_t index, v1::GetPlanResponse* response) {
  const Group& group = plan.groups[index];
  v1::PlanGroup& m = *response->add_groups();
  m.set_index(index);
  m.set_stage_begin(group.stage_begin);
  m.set_stage_end(group.stage_end);
  m.set_weight_bytes(group.weight_bytes);
  m.set_activation_bytes(group.activation_bytes);
  m.set_kv_bytes(group.kv_bytes);
  m.set_total_bytes(group.total_bytes());
}

void AddTensors(const Gguf& gguf, v1::GetModelResponse* m) {
  std::map<std::string_view, uint64_t> types;
  uint64_t parameters = 0;
  for (const TensorInfo& tensor : gguf.tensors) {
    types[Traits(tensor.type).name] += tensor.bytes;
    parameters += tensor.columns * tensor.rows * tensor.depth;
  }
  std::vector<std::pair<std::string_view, uint64_t>> sorted(types.begin(), types.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [type, bytes] : sorted) {
    v1::TensorTypeBytes& of_type = *m->add_tensor_types();
    of_type.set_type(std::string(type));
    of_type.set_bytes(bytes);
  }
  m->set_parameters(parameters);
}

}  // namespace

v1::GetStatusResponse StatusMessage(const RpcContext& context) {
  v1::GetStatusResponse m = ToMessage(context.services.status.Describe());
  m.set_estimated_wait_seconds(context.services.scheduler.EstimatedWaitSeconds());
  const std::string why = NotReady(context);
  m.set_ready(why.empty());
  m.set_not_ready_reason(ToValidUtf8(why));
  return m;
}

Status AnswerGetStatus(RpcContext& context, const grpc::ByteBuffer& request,
                       grpc::ByteBuffer* response) {
  v1::GetStatusRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(request, {}, &message));
  *response = ToBytes(StatusMessage(context));
  return {};
}

Status AnswerGetModel(RpcContext& context, const grpc::ByteBuffer& request,
                      grpc::ByteBuffer* response) {
  v1::GetModelRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(request, {}, &message));
  const RpcServices& services = context.services;
  const Model& model = services.model;
  v1::GetModelResponse m;
  m.set_name(ToValidUtf8(model.name));
  m.set_architecture(ToValidUtf8(model.architecture));
  m.set_fingerprint(model.fingerprint.data(), model.fingerprint.size());
  m.set_file_bytes(model.gguf.file_bytes);
  m.set_weight_bytes(services.plan.model_bytes);
  AddTensors(model.gguf, &m);
  m.set_context_tokens(services.context_tokens);
  m.set_trained_context_tokens(model.context_tokens);
  m.set_vocabulary(services.tokenizer.vocab_size());
  m.set_layers(model.n_layers);
  m.set_hidden_size(model.hidden_size);
  m.set_heads(model.n_heads);
  m.set_kv_heads(model.n_kv_heads);
  m.set_head_dim(model.head_dim);
  m.set_ffn_size(model.ffn_size);
  THIMBLE_ASSIGN_OR_RETURN(const std::string tokenizer,
                           model.gguf.GetStringOr("tokenizer.ggml.model", ""));
  m.set_tokenizer(ToValidUtf8(tokenizer));
  if (const auto bos = services.tokenizer.bos()) m.set_bos_id(*bos);
  for (const TokenId id : services.tokenizer.end_tokens()) m.add_end_ids(id);
  if (context.chat->ok()) {
    m.set_chat_template(std::string(ChatFamilyName((*context.chat)->family())));
  } else {
    m.set_chat_template_note(ToValidUtf8(context.chat->status().message()));
  }
  m.set_max_request_bytes(context.max_request_bytes);
  m.set_max_prompt_bytes(static_cast<uint32_t>(MaxPromptBytes(services)));
  *response = ToBytes(m);
  return {};
}

Status AnswerGetPlan(RpcContext& context, const grpc::ByteBuffer& request,
                     grpc::ByteBuffer* response) {
  v1::GetPlanRequest message;
  THIMBLE_RETURN_IF_ERROR(ParseMessage(request, {}, &message));
  const Plan& plan = context.services.plan;
  const auto total = static_cast<uint32_t>(plan.stages.size());
  const uint32_t most = message.has_max_stages() ? message.max_stages() : kMaxStages;
  if (message.first_stage() > total) {
    return InvalidArgumentError("first_stage " + std::to_string(message.first_stage()) +
                                ": from 0 to " + std::to_string(total));
  }
  if (most < 1 || most > kMaxStages) {
    return InvalidArgumentError("max_stages " + std::to_string(most) + ": from 1 to " +
                                std::to_string(kMaxStages));
  }
  v1::GetPlanResponse m;
  const bool bounded = plan.options.budget_bytes != UINT64_MAX;
  m.set_granularity(std::string(GranularityName(plan.options.granularity)));
  m.set_budget_bytes(bounded ? plan.options.budget_bytes : 0);
  m.set_rows(plan.max_rows);
  m.set_shared_prompt_rows(plan.shared_prompt_rows);
  m.set_logit_rows(plan.max_logit_rows);
  m.set_tile_bytes(plan.tile_bytes);
  m.set_ring_bytes(plan.ring_bytes);
  m.set_values_bytes(plan.resident_offset - plan.values_offset);
  m.set_resident_bytes(plan.resident_bytes);
  m.set_kv_bytes(plan.kv_bytes);
  m.set_spare_bytes(plan.options.spare_bytes);
  m.set_peak_bytes(plan.peak_bytes);
  m.set_model_bytes(plan.model_bytes);
  m.set_pass_bytes(plan.pass_bytes);
  m.set_stages_total(total);
  m.set_groups_total(static_cast<uint32_t>(plan.groups.size()));
  const uint32_t end = message.first_stage() + std::min(most, total - message.first_stage());
  for (uint32_t i = message.first_stage(); i < end; ++i) {
    const Stage& stage = plan.stages[i];
    AddStage(plan, stage, &m);
    const int groups = m.groups_size();
    if (groups == 0 || m.groups(groups - 1).index() != stage.group) {
      AddGroup(plan, stage.group, &m);
    }
  }
  *response = ToBytes(m);
  return {};
}

}  // namespace thimble
