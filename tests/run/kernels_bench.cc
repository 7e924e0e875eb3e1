// Products by tensor type: bytes of weights a second for one row and a few, products a second,
// beside the rate at which this processor reads the same memory. Run pinned: `taskset -c 1
// kernels_bench`.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "daemon/run/kernels.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

constexpr size_t kColumns = 1536;

// Weights of about this many bytes: 1 MiB fits the second-level cache, 96 MiB no cache.
size_t OutputsFor(TensorType type, size_t bytes) {
  return bytes / RowBytes(type, kColumns) / 16 * 16;
}

// In huge pages, as the arena is.
class Memory {
 public:
  explicit Memory(size_t bytes)
      : bytes_(bytes),
        data_(static_cast<uint8_t*>(std::aligned_alloc(kHuge, AlignUp(bytes, kHuge)))) {
    static_cast<void>(::madvise(data_.get(), AlignUp(bytes, kHuge), MADV_HUGEPAGE));
    std::memset(data_.get(), 3, bytes);
  }
  [[nodiscard]] uint8_t* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return bytes_; }

 private:
  static constexpr size_t kHuge = size_t{2} << 20;
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  size_t bytes_;
  std::unique_ptr<uint8_t, Free> data_;
};

Memory Weights(TensorType type, size_t n_outputs) {
  Memory w(n_outputs * RowBytes(type, kColumns));
  uint32_t state = 1;
  for (uint8_t& byte : std::span(w.data(), w.size())) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<uint8_t>(state >> 24) & 0x3B;  // as halves and scales: finite
  }
  // As floats about one: products of tiny ones would be subnormal, which some processors are slow
  // at.
  const size_t float_bytes = type == TensorType::kF32 ? 4 : type == TensorType::kBF16 ? 2 : 0;
  for (size_t i = float_bytes; float_bytes > 0 && i <= w.size(); i += float_bytes) {
    w.data()[i - 1] |= 0x3C;
  }
  return w;
}

void BM_MatMul(benchmark::State& state, TensorType type, size_t n_rows, size_t bytes) {
  const size_t n_outputs = OutputsFor(type, bytes);
  const Memory w = Weights(type, n_outputs);
  const size_t stride = PreparedRowBytes(FormFor(type), kColumns);
  std::vector<uint8_t> buffer(n_rows * stride + 64);
  uint8_t* x = buffer.data() + (64 - reinterpret_cast<uintptr_t>(buffer.data()) % 64);
  std::vector<float> row(kColumns);
  for (size_t i = 0; i < kColumns; ++i) row[i] = static_cast<float>(i % 17) - 8.0F;
  for (size_t r = 0; r < n_rows; ++r)
    PrepareRow(FormFor(type), row.data(), kColumns, x + r * stride);
  std::vector<float> y(n_rows * n_outputs);
  while (state.KeepRunning()) {
    MatMul(type, w.data(), n_outputs, kColumns, x, stride, n_rows, y.data(), n_outputs);
    benchmark::ClobberMemory();
  }
  const auto iterations = static_cast<int64_t>(state.iterations());
  state.SetBytesProcessed(iterations * static_cast<int64_t>(w.size()));
  state.counters["GMAC/s"] = benchmark::Counter(
      static_cast<double>(n_rows * n_outputs * kColumns) * static_cast<double>(iterations) / 1e9,
      benchmark::Counter::kIsRate);
  state.SetLabel(KernelTarget());
}

// The baseline: the C library's search, in vectors, for a byte that is not there.
void BM_Read(benchmark::State& state, size_t bytes) {
  const Memory memory(bytes);
  while (state.KeepRunning()) {
    benchmark::DoNotOptimize(std::memchr(memory.data(), 4, memory.size()));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(bytes));
}

void BM_Copy(benchmark::State& state, size_t bytes) {
  const Memory from(bytes);
  const Memory to(bytes);
  while (state.KeepRunning()) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(bytes));
}

// A KV block by as many queries, as of heads that share it.
void BM_Attend(benchmark::State& state, size_t n_queries) {
  const size_t head_dim = 64;
  const std::vector<uint16_t> kv(2 * 32 * head_dim, 0x3000);
  const std::vector<float> q(n_queries * head_dim, 0.1F);
  std::vector<float> acc(n_queries * head_dim);
  std::vector<AttentionState> states(n_queries);
  while (state.KeepRunning()) {
    std::fill(states.begin(), states.end(), AttentionState{});
    AttendBlock({.q = q.data(), .states = states.data(), .acc = acc.data(), .n = n_queries},
                kv.data(), kv.data() + 32 * head_dim, 32, head_dim, 0.125F);
    benchmark::DoNotOptimize(acc.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * n_queries));
}

// A KV block's keys, or values, of one head.
void BM_Q8ToHalf(benchmark::State& state) {
  const std::vector<uint16_t> blocks(size_t{32} * 64 / 32 * 17, 0x3000);
  std::vector<uint16_t> halves(size_t{32} * 64);
  while (state.KeepRunning()) {
    Q8ToHalf(blocks.data(), halves.size(), halves.data());
    benchmark::ClobberMemory();
  }
}

void BM_RmsNorm(benchmark::State& state) {
  std::vector<float> x(kColumns, 0.5F);
  const std::vector<float> weight(kColumns, 1.0F);
  while (state.KeepRunning()) {
    RmsNorm(x.data(), weight.data(), 1e-5F, kColumns, x.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kColumns * sizeof(float)));
}

void BM_SwiGlu(benchmark::State& state) {
  const std::vector<float> gate(kColumns, 0.5F);
  std::vector<float> up(kColumns, 1.0F);
  while (state.KeepRunning()) {
    SwiGlu(gate.data(), up.data(), kColumns);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kColumns * sizeof(float)));
}

void BM_PrepareRow(benchmark::State& state) {
  const std::vector<float> x(kColumns, 0.5F);
  std::vector<uint8_t> out(PreparedRowBytes(ActivationForm::kQ8, kColumns) + 64);
  uint8_t* aligned = out.data() + (64 - reinterpret_cast<uintptr_t>(out.data()) % 64);
  while (state.KeepRunning()) {
    PrepareRow(ActivationForm::kQ8, x.data(), kColumns, aligned);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kColumns * sizeof(float)));
}

void RegisterAll() {
  constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,    TensorType::kBF16,
                                   TensorType::kQ8_0, TensorType::kQ4_0,   TensorType::kQ4_1,
                                   TensorType::kQ5_0, TensorType::kQ5_1,   TensorType::kQ2_K,
                                   TensorType::kQ3_K, TensorType::kQ4_K,   TensorType::kQ5_K,
                                   TensorType::kQ6_K, TensorType::kIQ4_NL, TensorType::kIQ4_XS};
  struct Size {
    const char* name;
    size_t bytes;
    std::vector<size_t> rows;
  };
  const Size sizes[] = {{"/1MiB", size_t{1} << 20, {1, 2, 3, 4, 8, 16, 32}},
                        {"/96MiB", size_t{96} << 20, {1, 4}}};
  for (const auto& [suffix, bytes, all_rows] : sizes) {
    benchmark::RegisterBenchmark((std::string("Read") + suffix).c_str(), BM_Read, bytes);
    benchmark::RegisterBenchmark((std::string("Copy") + suffix).c_str(), BM_Copy, bytes);
    for (const TensorType type : kTypes) {
      for (const size_t rows : all_rows) {
        const std::string name =
            "MatMul/" + std::string(Traits(type).name) + "/rows:" + std::to_string(rows) + suffix;
        benchmark::RegisterBenchmark(name.c_str(), BM_MatMul, type, rows, bytes);
      }
    }
  }
  for (const size_t n : {1, 2, 3, 4, 8}) {
    benchmark::RegisterBenchmark(("Attend/32x64/queries:" + std::to_string(n)).c_str(), BM_Attend,
                                 n);
  }
  benchmark::RegisterBenchmark("Q8ToHalf/32x64", BM_Q8ToHalf);
  benchmark::RegisterBenchmark("RmsNorm", BM_RmsNorm);
  benchmark::RegisterBenchmark("SwiGlu", BM_SwiGlu);
  benchmark::RegisterBenchmark("PrepareRow", BM_PrepareRow);
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  thimble::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
