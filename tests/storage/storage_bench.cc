// What keys and values cost on the disk and in time, for the shape of SmolLM2-135M: run by hand as
// `storage_bench DIR` with DIR on the device in question. Prints one line a measurement.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "storage/journal.h"
#include "storage/kv_cache.h"

namespace thimble {
namespace {

using Clock = std::chrono::steady_clock;
double Microseconds(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

void Check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// Bytes given to write(2) and its kin, and bytes that had to go to the device, so far.
struct Written {
  long long calls = 0;
  long long device = 0;
};
Written Io() {
  Written w;
  FILE* file = std::fopen("/proc/self/io", "r");
  char line[128];
  while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
    std::sscanf(line, "wchar: %lld", &w.calls);
    std::sscanf(line, "write_bytes: %lld", &w.device);
  }
  if (file != nullptr) std::fclose(file);
  return w;
}

constexpr KvShape kShape = {.n_layers = 30, .n_kv_heads = 3, .head_dim = 64};

void Generate(const std::string& dir, size_t n_tokens, size_t chunk, bool batch) {
  auto env = LmdbEnv::Open(dir + "/kv" + std::to_string(chunk) + (batch ? "b" : "s"),
                           {.map_bytes = uint64_t{1} << 30, .sync_commits = false});
  Check(env.status());
  auto kv = KvCache::Open(**env, {}, kShape, uint64_t{700} << 20);
  Check(kv.status());
  auto sequence = (*kv)->OpenSequence({}, static_cast<uint32_t>(n_tokens));
  Check(sequence.status());
  const std::vector<uint16_t> rows(chunk * kShape.RowHalves(), 0x3c00);
  std::vector<int32_t> tokens(chunk);
  std::vector<uint16_t> scratch(size_t{2} * kKvBlockTokens * kShape.head_dim);
  double append = 0;
  double commit = 0;
  double head = 0;
  size_t heads = 0;
  uint64_t sum = 0;
  const Written before = Io();
  for (size_t done = 0; done < n_tokens; done += chunk) {
    for (size_t i = 0; i < chunk; ++i) tokens[i] = static_cast<int32_t>(done + i);
    LmdbTxn txn;
    for (uint32_t layer = 0; layer < kShape.n_layers; ++layer) {
      auto begin = Clock::now();
      if (batch && layer == 0) {
        auto opened = (*env)->BeginWrite();
        Check(opened.status());
        txn = std::move(opened).value();
      }
      Check((*kv)->AppendRows(*sequence, layer, tokens, rows.data(), batch ? &txn : nullptr));
      if (batch && layer + 1 == kShape.n_layers) Check(txn.Commit());
      append += Microseconds(begin);
      if (batch) continue;
      begin = Clock::now();
      auto reader = KvCache::Reader::Begin(**kv);
      Check(reader.status());
      const auto n_total = static_cast<uint32_t>(done + chunk);
      for (uint32_t block = 0; block * kKvBlockTokens < n_total; ++block) {
        for (uint32_t kv_head = 0; kv_head < kShape.n_kv_heads; ++kv_head, ++heads) {
          KvHeadBlock out;
          Check(reader->Head(*sequence, tokens, layer, block, n_total, kv_head, scratch.data(),
                             &out));
          sum += out.keys[0];
        }
      }
      head += Microseconds(begin);
    }
    const auto begin = Clock::now();
    Check((*kv)->PrepareRows(*sequence, tokens));
    (*kv)->CommitRows(*sequence, tokens);
    commit += Microseconds(begin);
  }
  const Written after = Io();
  const double passes = static_cast<double>(n_tokens) / static_cast<double>(chunk);
  const auto per_token = [&](double v) { return v / static_cast<double>(n_tokens); };
  std::printf(
      "kv %zu tokens, %zu a pass, %s: AppendRows %.1f us a layer, CommitRows %.1f us a pass, "
      "Head %.2f us; a token: %.0f bytes written, %.0f bytes to the device, %.0f us (check %llu)\n",
      n_tokens, chunk, batch ? "one transaction a pass" : "one a layer",
      append / passes / kShape.n_layers, commit / passes,
      heads > 0 ? head / static_cast<double>(heads) : 0.0,
      per_token(static_cast<double>(after.calls - before.calls)),
      per_token(static_cast<double>(after.device - before.device)), per_token(append + commit),
      static_cast<unsigned long long>(sum));
  const auto begin = Clock::now();
  Check((*kv)->CloseSequence(*sequence));
  std::printf("  CloseSequence %.0f us; file in use %.1f MiB for %.1f MiB of halves\n",
              Microseconds(begin), static_cast<double>((*env)->UsedBytes().value()) / 1048576.0,
              static_cast<double>(n_tokens * kShape.n_layers * kShape.RowHalves() * 2) / 1048576.0);
  std::vector<int32_t> prompt(n_tokens);
  for (size_t i = 0; i < n_tokens; ++i) prompt[i] = static_cast<int32_t>(i);
  const auto opening = Clock::now();
  auto again = (*kv)->OpenSequence(prompt, static_cast<uint32_t>(n_tokens));
  Check(again.status());
  std::printf("  OpenSequence %.0f us, %u tokens taken over\n", Microseconds(opening),
              again->n_tokens);
}

void Emit(const std::string& dir) {
  auto env = LmdbEnv::Open(dir + "/journal", {.map_bytes = uint64_t{64} << 20});
  Check(env.status());
  auto journal = Journal::Open(**env);
  Check(journal.status());
  Check((*journal)->Accept("", std::string(200, 'x')).status());
  constexpr uint32_t kTokens = 200;
  const Written before = Io();
  const auto begin = Clock::now();
  for (uint32_t i = 0; i < kTokens; ++i) {
    const auto token = static_cast<int32_t>(i);
    const Journal::Emitted emitted = {1, i, {&token, 1}};
    Check((*journal)->AppendTokens({&emitted, 1}));
  }
  const double us = Microseconds(begin) / kTokens;
  const Written after = Io();
  std::printf(
      "journal: AppendTokens of one token %.0f us, %lld bytes written, %lld to the device\n", us,
      (after.calls - before.calls) / kTokens, (after.device - before.device) / kTokens);
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: storage_bench DIR (empty; it is filled with up to 300 MiB)\n");
    return 2;
  }
  thimble::Generate(argv[1], 512, 1, false);
  thimble::Generate(argv[1], 512, 1, true);
  thimble::Generate(argv[1], 512, 32, false);
  thimble::Generate(argv[1], 512, 64, true);
  thimble::Emit(argv[1]);
  return 0;
}
