// What the scheduler's tests put around it: a runner and a tokenizer without a model, a sink that
// remembers, and the real journal, KV cache and stage store in a directory of their own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/queue/scheduler.h"
#include "storage/lmdb.h"

namespace thimble {

inline constexpr uint32_t kFakeVocab = 50;

// Its logits are a function of a sequence's tokens; two steps a pass, rows go to the real KV cache.
class FakeRunner final : public Runner {
 public:
  explicit FakeRunner(KvCache& kv) : kv_(kv) {}

  Status Begin(std::span<const PassItem> items) override;
  Result<bool> Step() override;
  void Drop(size_t index) override;
  void Abort() override;
  [[nodiscard]] bool running() const override { return running_; }
  [[nodiscard]] size_t stage() const override { return 0; }
  [[nodiscard]] const RunnerStats& stats() const override { return stats_; }
  [[nodiscard]] const WeightReader& reader() const override;
  [[nodiscard]] ReadStats read_stats() const override { return {}; }

  struct Row {
    int32_t first_prompt_token;  // names the request in these tests
    uint32_t rows;
    uint32_t n_logits;
  };
  using Pass = std::vector<Row>;
  std::vector<Pass> passes;  // as begun

  // Where set, the next token of a sequence (for greedy requests).
  std::function<int32_t(const std::vector<int32_t>& tokens)> next_token;
  // Where set, may fail the pass; called with the tokens of each item at its last step.
  std::function<Status(const std::vector<int32_t>& tokens)> fault;
  // Where set, called as a pass begins, with its rows.
  std::function<void(uint32_t rows)> on_begin;
  // How many of the last tokens the logits depend on: few make a text that repeats itself.
  size_t memory = SIZE_MAX;
  // Of each so many passes one has rows for the chains of its trees alone; 0: none has.
  uint32_t cut_every = 0;
  size_t drops = 0;
  size_t cuts = 0;      // trees
  size_t branches = 0;  // rows that were kept and do not follow the first drafts of a tree

 private:
  Status Deliver(const PassItem& item);

  KvCache& kv_;
  std::vector<PassItem> items_;       // a dropped one has no sequence
  std::vector<int32_t> kept_tokens_;  // of trees
  int steps_ = 0;
  bool running_ = false;
  RunnerStats stats_;
};

// Token i is "<i>" where `pieces` has nothing else for it.
class FakeTokenizer final : public Tokenizer {
 public:
  Result<std::vector<TokenId>> Encode(std::string_view text, const EncodeOptions& options) override;
  Result<std::vector<TokenId>> EncodeParts(std::span<const TextPart> parts,
                                           bool /*add_special*/) override {
    std::string text;
    for (const TextPart& part : parts) text += part.text;
    return Encode(text, {});
  }
  Result<std::string> TokenBytes(TokenId id, bool show_special) override;
  Result<std::string> Decode(const std::vector<TokenId>& ids) override;
  [[nodiscard]] std::optional<TokenId> bos() const override { return std::nullopt; }
  [[nodiscard]] std::optional<TokenId> eos() const override { return std::nullopt; }
  [[nodiscard]] bool adds_bos() const override { return false; }
  [[nodiscard]] const std::vector<TokenId>& end_tokens() const override { return ends; }
  [[nodiscard]] uint32_t vocab_size() const override { return kFakeVocab; }

  std::map<TokenId, std::string> pieces;
  std::vector<TokenId> ends = {kFakeVocab - 1};
};

class RecordingSink final : public RequestSink {
 public:
  void OnQueued(uint32_t position, double wait_seconds) override;
  void OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) override;
  void OnPromptProgress(uint32_t done, uint32_t total) override;
  void OnToken(uint32_t index, TokenId id, const std::string& text, float log_probability) override;
  void OnTail(const std::string& text) override;
  void OnDone(const RequestResult& result) override;
  [[nodiscard]] bool CanAccept() const override { return accepts; }

  bool accepts = true;
  std::vector<uint32_t> positions;
  std::vector<double> waits;
  std::vector<uint32_t> progress;
  uint32_t started = 0;
  uint32_t cached = 0;
  std::vector<TokenId> ids;
  std::vector<float> log_probabilities;
  std::vector<std::string> texts;
  std::string text;  // joined, with the tail
  std::string tail;
  std::optional<RequestResult> done;

 private:
  void ExpectLive() const;  // nothing comes after OnDone
};

// The directory outlives Restart.
class SchedulerWorld {
 public:
  SchedulerWorld();
  ~SchedulerWorld();

  // Opens everything on the directory again, as after a crash: nothing is told, nothing finished.
  void Restart();
  void Close();
  // Steps until there is no work, at most `steps` times.
  void Run(int steps = 100000);
  // Until `condition`, at most 100000 steps.
  void RunUntil(const std::function<bool()>& condition);

  SchedulerOptions options;
  Model model;
  FakeTokenizer tokenizer;
  double now = 100;                                // the clock, one millisecond more at each look
  std::function<void(FakeRunner&)> set_up_runner;  // at each start
  uint64_t cache_map_bytes = 64 << 20;
  KvShape kv_shape{1, 1, 4};
  uint64_t kv_quota_bytes = 16 << 20;
  uint64_t journal_map_bytes = 16 << 20;

  std::unique_ptr<LmdbEnv> journal_env;
  std::unique_ptr<LmdbEnv> cache_env;
  std::unique_ptr<Journal> journal;
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<StageStore> store;
  std::unique_ptr<FakeRunner> runner;
  std::unique_ptr<Scheduler> scheduler;

 private:
  std::string directory_;
};

// A greedy request for `max_tokens` after `length` tokens that begin with `first`.
GenerationRequest Greedy(int32_t first, uint32_t length, uint32_t max_tokens);
// One that draws, with everything on that could tell runs apart.
GenerationRequest Drawing(int32_t first, uint32_t length, uint32_t max_tokens, uint64_t seed);

}  // namespace thimble
