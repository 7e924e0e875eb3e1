#include "daemon/run/session.h"

#include <utility>

namespace thimble {

Result<Session> Session::Open(std::unique_ptr<RandomAccessFile> file, LmdbEnv& cache,
                              const SessionOptions& options) {
  Session session;
  session.file = std::move(file);
  THIMBLE_ASSIGN_OR_RETURN(session.model, LoadModel(*session.file));
  const KvShape shape = {session.model->n_layers, session.model->n_kv_heads,
                         session.model->head_dim, options.kv_type};
  PlanOptions plan_options = options.plan;
  SetKv(KvPool::SlotBytes(shape), 1, options.kv_ram_tokens, &plan_options);
  THIMBLE_ASSIGN_OR_RETURN(Plan plan, MakePlan(*session.model, plan_options));
  session.plan = std::make_unique<Plan>(std::move(plan));
  THIMBLE_ASSIGN_OR_RETURN(
      session.kv, KvCache::Open(cache, session.model->fingerprint, shape, options.kv_quota_bytes));
  THIMBLE_ASSIGN_OR_RETURN(session.store, StageStore::Open(cache));
  THIMBLE_ASSIGN_OR_RETURN(
      session.runner, Runner::Open(*session.model, *session.plan, *session.file, options.reader,
                                   *session.kv, *session.store));
  return session;
}

}  // namespace thimble
