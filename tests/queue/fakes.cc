#include "tests/queue/fakes.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <filesystem>

namespace thimble {
namespace {

template <typename T>
T Take(Result<T> result, const char* what) {
  if (!result.ok()) {
    ADD_FAILURE() << what << ": " << result.status().ToString();
    std::terminate();
  }
  return std::move(result).value();
}

// Logits of a row: noise seeded by the tokens.
std::vector<float> HashLogits(std::span<const int32_t> tokens) {
  uint64_t state = 0x9E3779B97F4A7C15;
  for (const int32_t token : tokens) {
    state = (state ^ static_cast<uint64_t>(token)) * 0xBF58476D1CE4E5B9;
    state ^= state >> 29;
  }
  std::vector<float> logits(kFakeVocab);
  for (float& logit : logits) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    logit = static_cast<float>(state >> 40) * 0x1p-22F;
  }
  logits.back() = -100;  // the end token comes by script only
  return logits;
}

}  // namespace

const WeightReader& FakeRunner::reader() const { std::terminate(); }

Status FakeRunner::Begin(std::span<const PassItem> items) {
  EXPECT_FALSE(running_);
  EXPECT_FALSE(items.empty());
  Pass pass;
  for (const PassItem& item : items) {
    EXPECT_FALSE(item.tokens.empty());
    EXPECT_EQ(item.n_logits > 0, item.sink != nullptr);
    const auto& known = item.sequence->tokens;
    pass.push_back({item.sequence->n_tokens > 0 ? known[0] : item.tokens[0],
                    static_cast<uint32_t>(item.tokens.size()), item.n_logits});
  }
  passes.push_back(pass);
  uint32_t rows = 0;
  for (const Row& row : pass) rows += row.rows;
  if (on_begin) on_begin(rows);
  items_.assign(items.begin(), items.end());
  const bool cut = cut_every > 0 && passes.size() % cut_every == 0;
  for (PassItem& item : items_) {
    if (!cut || item.drafts == nullptr) continue;
    item.CutToChain();
    ++cuts;
  }
  steps_ = 0;
  running_ = true;
  return {};
}

Result<bool> FakeRunner::Step() {
  EXPECT_TRUE(running_);
  if (++steps_ < 2) return false;
  running_ = false;
  const std::vector<uint16_t> rows(64 * kv_.shape().RowHalves());
  kept_tokens_.clear();
  kept_tokens_.reserve(items_.size() * (1 + DraftTree::kMost));  // spans of it stay valid
  for (const PassItem& item : items_) {
    if (item.sequence == nullptr) continue;
    THIMBLE_RETURN_IF_ERROR(Deliver(item));
  }
  for (const PassItem& item : items_) {
    if (item.sequence == nullptr || item.drafts != nullptr) continue;
    THIMBLE_RETURN_IF_ERROR(kv_.AppendRows(*item.sequence, 0, item.tokens, rows.data()));
  }
  for (PassItem& item : items_) {
    if (item.sequence == nullptr) continue;
    const auto n = static_cast<uint32_t>(item.tokens.size());
    const uint32_t kept = item.sink != nullptr ? item.sink->TokensToKeep(n) : n;
    if (item.drafts != nullptr) {
      const std::span<const uint8_t> kept_rows = item.sink->RowsToKeep();
      EXPECT_EQ(kept_rows.size(), kept);
      for (const uint8_t row : kept_rows) {
        kept_tokens_.push_back(item.tokens[row]);
        branches += row > item.drafts->ChainSize() ? 1 : 0;
      }
      item.tokens = std::span(kept_tokens_).last(kept);
      THIMBLE_RETURN_IF_ERROR(kv_.AppendRows(*item.sequence, 0, item.tokens, rows.data()));
    }
    item.tokens = item.tokens.first(kept);
    THIMBLE_RETURN_IF_ERROR(kv_.PrepareRows(*item.sequence, item.tokens));
  }
  for (const PassItem& item : items_) {
    if (item.sequence != nullptr) kv_.CommitRows(*item.sequence, item.tokens);
  }
  return true;
}

Status FakeRunner::Deliver(const PassItem& item) {
  const auto known = std::span(item.sequence->tokens).first(item.sequence->n_tokens);
  std::vector<int32_t> tokens(known.begin(), known.end());
  tokens.insert(tokens.end(), item.tokens.begin(), item.tokens.end());
  if (fault) THIMBLE_RETURN_IF_ERROR(fault(tokens));
  for (uint32_t row = 0; row < item.n_logits; ++row) {
    size_t n = tokens.size() - (item.n_logits - 1 - row);
    std::vector<int32_t> until = tokens;
    if (item.drafts != nullptr) {
      std::array<int32_t, DraftTree::kMost> path{};
      item.drafts->PathTo(row, &path);
      n = known.size() + 1 + item.drafts->Depth(row);
      std::copy_n(path.begin(), item.drafts->Depth(row),
                  until.begin() + static_cast<ptrdiff_t>(known.size()) + 1);
    }
    until.resize(n);
    std::vector<float> logits = HashLogits(std::span(until).last(std::min(n, memory)));
    if (next_token) logits[static_cast<size_t>(next_token(until))] = 1000;
    for (size_t at = 0; at < logits.size(); at += 7) {
      const auto tile = std::span(logits).subspan(at, std::min<size_t>(7, logits.size() - at));
      THIMBLE_RETURN_IF_ERROR(item.sink->OnLogits(row, static_cast<uint32_t>(at), tile));
    }
  }
  return {};
}

void FakeRunner::Drop(size_t index) {
  EXPECT_TRUE(running_);
  ASSERT_LT(index, items_.size());
  EXPECT_NE(items_[index].sequence, nullptr);
  items_[index] = {};
  ++drops;
  running_ = std::any_of(items_.begin(), items_.end(),
                         [](const PassItem& item) { return item.sequence != nullptr; });
}

void FakeRunner::Abort() { running_ = false; }

Result<std::vector<TokenId>> FakeTokenizer::Encode(std::string_view, const EncodeOptions&) {
  return UnimplementedError("encode: not in these tests");
}

Result<std::string> FakeTokenizer::TokenBytes(TokenId id, bool) {
  if (id < 0 || static_cast<uint32_t>(id) >= kFakeVocab) {
    return OutOfRangeError("token " + std::to_string(id));
  }
  const auto piece = pieces.find(id);
  return piece != pieces.end() ? piece->second : "<" + std::to_string(id) + ">";
}

Result<std::string> FakeTokenizer::Decode(const std::vector<TokenId>&) {
  return UnimplementedError("decode: not in these tests");
}

void RecordingSink::ExpectLive() const { EXPECT_FALSE(done.has_value()) << "called after OnDone"; }

void RecordingSink::OnQueued(uint32_t position, double wait_seconds) {
  ExpectLive();
  waits.push_back(wait_seconds);
  positions.push_back(position);
}

void RecordingSink::OnStarted(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) {
  ExpectLive();
  EXPECT_EQ(started, 0U);
  started = prompt_tokens;
  cached = cached_prompt_tokens;
}

void RecordingSink::OnPromptProgress(uint32_t progress_done, uint32_t total) {
  ExpectLive();
  EXPECT_EQ(total, started);
  progress.push_back(progress_done);
}

void RecordingSink::OnToken(uint32_t index, TokenId id, const std::string& piece,
                            float log_probability) {
  ExpectLive();
  EXPECT_GT(started, 0U);
  EXPECT_EQ(index, ids.size());
  ids.push_back(id);
  log_probabilities.push_back(log_probability);
  texts.push_back(piece);
  text += piece;
}

void RecordingSink::OnTail(const std::string& rest) {
  ExpectLive();
  EXPECT_TRUE(tail.empty());
  tail = rest;
  text += rest;
}

void RecordingSink::OnDone(const RequestResult& result) {
  ExpectLive();
  done = result;
}

SchedulerWorld::SchedulerWorld() {
  std::string pattern = testing::TempDir() + "thimble-queue-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) std::terminate();
  directory_ = pattern;
  model.vocab_size = kFakeVocab;
  model.fingerprint = {1, 2, 3};
  options.context_tokens = 128;
  options.max_rows = 16;
  options.prompt_chunk = 16;
  options.clock = [this] { return now += 0.001; };
}

SchedulerWorld::~SchedulerWorld() {
  Close();
  std::filesystem::remove_all(directory_);
}

void SchedulerWorld::Close() {
  scheduler.reset();
  runner.reset();
  store.reset();
  kv.reset();
  journal.reset();
  cache_env.reset();
  journal_env.reset();
}

void SchedulerWorld::Restart() {
  Close();
  LmdbOptions durable;
  durable.map_bytes = journal_map_bytes;
  durable.sync_commits = false;  // no power is cut here
  journal_env = Take(LmdbEnv::Open(directory_ + "/journal", durable), "open the journal");
  LmdbOptions volatile_options;
  volatile_options.map_bytes = cache_map_bytes;
  volatile_options.sync_commits = false;
  cache_env = Take(LmdbEnv::Open(directory_ + "/cache", volatile_options), "open the cache");
  journal = Take(Journal::Open(*journal_env), "journal");
  kv = Take(KvCache::Open(*cache_env, model.fingerprint, kv_shape, kv_quota_bytes), "kv");
  store = Take(StageStore::Open(*cache_env), "store");
  runner = std::make_unique<FakeRunner>(*kv);
  if (set_up_runner) set_up_runner(*runner);
  scheduler =
      Take(Scheduler::Open(options, model, tokenizer, *runner, *kv, *store, *journal), "scheduler");
}

void SchedulerWorld::Run(int steps) {
  for (int i = 0; i < steps && scheduler->HasWork(); ++i) {
    const Status status = scheduler->Step();
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

void SchedulerWorld::RunUntil(const std::function<bool()>& condition) {
  for (int i = 0; i < 100000 && !condition(); ++i) {
    ASSERT_TRUE(scheduler->HasWork());
    ASSERT_TRUE(scheduler->Step().ok());
  }
}

GenerationRequest Greedy(int32_t first, uint32_t length, uint32_t max_tokens) {
  GenerationRequest request;
  request.prompt.resize(length);
  for (uint32_t i = 0; i < length; ++i) {
    request.prompt[i] = static_cast<int32_t>((static_cast<uint32_t>(first) + 7 * i) % 40);
  }
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

GenerationRequest Drawing(int32_t first, uint32_t length, uint32_t max_tokens, uint64_t seed) {
  GenerationRequest request = Greedy(first, length, max_tokens);
  request.sampling.temperature = 2;
  request.sampling.top_k = 0;
  request.sampling.repeat_penalty = 1.2F;
  request.sampling.seed = seed;
  return request;
}

}  // namespace thimble
