// For the KV cache's tests: rows that say where they belong, whole passes, and reading everything
// back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "storage/kv_cache.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {

constexpr KvShape kSmallShape = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 8};
constexpr Fingerprint kModelA = {1, 2, 3};

inline std::vector<int32_t> Prompt(size_t n, int32_t first = 1000) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = first + static_cast<int32_t>(i);
  return tokens;
}

// A half that depends on everything: what attention must find at this place.
inline uint16_t Half(uint32_t layer, uint32_t position, int32_t token, uint32_t head, uint32_t kv,
                     uint32_t d) {
  uint32_t h = 2166136261U;
  for (const uint32_t v : {layer, position, static_cast<uint32_t>(token), head, kv, d}) {
    h = (h ^ v) * 16777619U;
    h ^= h >> 13;
  }
  return static_cast<uint16_t>(h);
}

// [n][n_kv_heads][2][head_dim]
inline std::vector<uint16_t> Rows(const KvShape& shape, uint32_t layer, uint32_t position,
                                  std::span<const int32_t> tokens) {
  std::vector<uint16_t> rows;
  rows.reserve(tokens.size() * shape.RowHalves());
  for (size_t i = 0; i < tokens.size(); ++i) {
    for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      for (uint32_t kv = 0; kv < 2; ++kv) {
        for (uint32_t d = 0; d < shape.VectorHalves(); ++d) {
          rows.push_back(Half(layer, position + static_cast<uint32_t>(i), tokens[i], head, kv, d));
        }
      }
    }
  }
  return rows;
}

inline Status AppendLayer(KvCache& kv, const KvSequence& sequence, uint32_t layer,
                          std::span<const int32_t> tokens, LmdbTxn* batch = nullptr) {
  const auto rows = Rows(kv.shape(), layer, sequence.n_tokens, tokens);
  return kv.AppendRows(sequence, layer, tokens, rows.data(), batch);
}

// One pass over every layer, without its commit.
inline Status AppendAll(KvCache& kv, const KvSequence& sequence, std::span<const int32_t> tokens) {
  for (uint32_t layer = 0; layer < kv.shape().n_layers; ++layer) {
    THIMBLE_RETURN_IF_ERROR(AppendLayer(kv, sequence, layer, tokens));
  }
  return {};
}

inline Status Commit(KvCache& kv, KvSequence& sequence, std::span<const int32_t> tokens) {
  THIMBLE_RETURN_IF_ERROR(kv.PrepareRows(sequence, tokens));
  kv.CommitRows(sequence, tokens);
  return {};
}

inline Status Pass(KvCache& kv, KvSequence& sequence, std::span<const int32_t> tokens) {
  THIMBLE_RETURN_IF_ERROR(AppendAll(kv, sequence, tokens));
  return Commit(kv, sequence, tokens);
}

// The first place of `layer` where the cache differs from what Rows wrote; "" where none does.
inline std::string CheckLayer(KvCache& kv, const KvSequence& sequence,
                              std::span<const int32_t> pending, uint32_t layer) {
  auto reader = KvCache::Reader::Begin(kv);
  if (!reader.ok()) return reader.status().ToString();
  const KvShape& shape = kv.shape();
  std::vector<uint16_t> scratch(size_t{2} * kKvBlockTokens * shape.VectorHalves());
  const auto n_total = static_cast<uint32_t>(sequence.n_tokens + pending.size());
  for (uint32_t block = 0; block * kKvBlockTokens < n_total; ++block) {
    for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      KvHeadBlock out;
      const Status status =
          reader->Head(sequence, pending, layer, block, n_total, head, scratch.data(), &out);
      if (!status.ok()) return status.ToString();
      for (uint32_t p = block * kKvBlockTokens; p < n_total && p < (block + 1) * kKvBlockTokens;
           ++p) {
        const int32_t token =
            p < sequence.n_tokens ? sequence.tokens[p] : pending[p - sequence.n_tokens];
        for (uint32_t d = 0; d < shape.VectorHalves(); ++d) {
          const size_t at = size_t{p % kKvBlockTokens} * shape.VectorHalves() + d;
          if (out.keys[at] != Half(layer, p, token, head, 0, d) ||
              out.values[at] != Half(layer, p, token, head, 1, d)) {
            return "layer " + std::to_string(layer) + " token " + std::to_string(p) + " head " +
                   std::to_string(head) + " element " + std::to_string(d);
          }
        }
      }
    }
  }
  return "";
}

inline std::string CheckAll(KvCache& kv, const KvSequence& sequence,
                            std::span<const int32_t> pending = {}) {
  for (uint32_t layer = 0; layer < kv.shape().n_layers; ++layer) {
    if (std::string wrong = CheckLayer(kv, sequence, pending, layer); !wrong.empty()) return wrong;
  }
  return "";
}

inline std::unique_ptr<KvCache> MustOpenKv(LmdbEnv& env, uint64_t quota_bytes,
                                           const KvShape& shape = kSmallShape,
                                           const Fingerprint& model = kModelA) {
  auto kv = KvCache::Open(env, model, shape, quota_bytes);
  if (!kv.ok()) {
    ADD_FAILURE() << kv.status().ToString();
    std::abort();
  }
  return std::move(kv).value();
}

inline uint64_t Entries(LmdbEnv& env, const char* database) {
  const auto db = env.OpenDatabase(database);
  const auto txn = env.BeginRead();
  return db.ok() && txn.ok() ? txn->Count(*db).value() : UINT64_MAX;
}

}  // namespace thimble
