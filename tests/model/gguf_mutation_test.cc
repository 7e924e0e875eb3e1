// The short form of tests/fuzz/gguf_fuzz.cc, run with every build: some thousands of damaged copies
// of good files, always the same ones. Each must load completely or be refused with a message, read
// no byte outside the file, and hold no more memory than a small file can ask for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "daemon/model/model.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/heap_watch.h"
#include "tests/model/tiny_models.h"

namespace thimble {
namespace {

constexpr int kMutations = 20000;  // of each file: 0.4 s together, 4 s with AddressSanitizer

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  std::string Mutate(std::string bytes) {
    const uint32_t changes = 1 + Below(3);
    for (uint32_t i = 0; i < changes && !bytes.empty(); ++i) Change(&bytes);
    return bytes;
  }

 private:
  uint32_t Below(size_t limit) { return static_cast<uint32_t>(random_() % limit); }

  void Change(std::string* bytes) {
    constexpr uint64_t kNumbers[] = {
        0,        1,          2,          5,          13,         255,        65536,
        1U << 31, UINT32_MAX, 1ULL << 40, 1ULL << 62, 1ULL << 63, UINT64_MAX, UINT64_MAX - 31};
    const size_t at = Below(bytes->size());
    switch (Below(6)) {
      case 0:
        (*bytes)[at] = static_cast<char>((*bytes)[at] ^ (1 << Below(8)));
        break;
      case 1:
        (*bytes)[at] = static_cast<char>(Below(256));
        break;
      case 2: {
        const std::string number = Bytes(kNumbers[Below(std::size(kNumbers))]);
        bytes->replace(at, number.size(), number);
        break;
      }
      case 3: {
        const std::string number = Bytes(static_cast<uint32_t>(Below(40)));
        bytes->replace(at, number.size(), number);
        break;
      }
      case 4:
        bytes->resize(at);
        break;
      default: {
        const std::string chunk = bytes->substr(at, 1 + Below(64));
        bytes->insert(Below(bytes->size()), chunk);
        break;
      }
    }
  }

  std::mt19937 random_;  // its sequence is the same with every library
};

// What holds for every model that was accepted.
void CheckModel(const Model& model, size_t file_bytes) {
  for (const TensorInfo& tensor : model.gguf.tensors) {
    ASSERT_LE(tensor.offset, file_bytes);
    ASSERT_LE(tensor.bytes, file_bytes - tensor.offset);
    ASSERT_EQ(tensor.bytes, tensor.depth * tensor.rows * RowBytes(tensor.type, tensor.columns));
  }
  ASSERT_EQ(model.layers.size(), model.n_layers);
  ASSERT_EQ(model.n_heads % model.n_kv_heads, 0U);
  for (const Layer& layer : model.layers) {
    for (const Linear* linear :
         {&layer.wq, &layer.wk, &layer.wv, &layer.wo, &layer.ffn_up, &layer.ffn_down}) {
      ASSERT_NE(linear->tensor, nullptr);
      ASSERT_LE(linear->row_begin + linear->rows, linear->tensor->rows);
    }
    ASSERT_EQ(layer.wq.rows, uint64_t{model.n_heads} * model.head_dim);
    ASSERT_EQ(layer.wk.rows, uint64_t{model.n_kv_heads} * model.head_dim);
  }
  ASSERT_EQ(model.output.rows, model.vocab_size);
  ASSERT_EQ(model.rope.inverse_frequency.size(), model.rope.dimensions / 2);
}

void LoadMutated(const std::string& good, uint32_t seed) {
  Mutator mutator(seed);
  int accepted = 0;
  for (int i = 0; i < kMutations; ++i) {
    const std::string bytes = mutator.Mutate(good);
    const auto file = FileOf(bytes);
    const HeapWatch heap;
    const auto model = LoadModel(*file);
    ASSERT_LT(heap.peak_bytes(), 512 * 1024U) << i;
    if (model.ok()) {
      ++accepted;
      CheckModel(**model, bytes.size());
    } else {
      ASSERT_THAT(model.status().message(), ::testing::HasSubstr("memory.gguf: ")) << i;
    }
    if (::testing::Test::HasFatalFailure()) FAIL() << "mutation " << i;
  }
  // Changes of weights and names are harmless, changes of structure are not: both must have been
  // met.
  EXPECT_GT(accepted, kMutations / 100);
  EXPECT_LT(accepted, kMutations * 99 / 100);
}

TEST(GgufMutation, LlamaFilesLoadOrAreRefused) { LoadMutated(TinyLlama().Build(), 1); }
TEST(GgufMutation, Gpt2FilesLoadOrAreRefused) { LoadMutated(TinyGpt2().Build(), 2); }
// The data left out: nearly every change is one of the header.
TEST(GgufMutation, HeadersAreRefused) {
  Mutator mutator(3);
  const std::string header = TinyLlama().Header();
  for (int i = 0; i < kMutations; ++i) {
    ASSERT_FALSE(LoadModel(*FileOf(mutator.Mutate(header))).ok()) << i;
  }
}

}  // namespace
}  // namespace thimble
