// From a file to a Model: what each architecture maps to what.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "daemon/model/model.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/tiny_models.h"

namespace thimble {
namespace {

std::unique_ptr<Model> Load(const GgufBuilder& builder) {
  auto model = LoadModel(*builder.File());
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  return model.ok() ? std::move(model).value() : std::make_unique<Model>();
}

void ExpectLinear(const Linear& linear, const std::string& name, uint64_t row_begin, uint64_t rows,
                  const std::string& bias = "") {
  ASSERT_NE(linear.tensor, nullptr);
  EXPECT_EQ(linear.tensor->name, name);
  EXPECT_EQ(linear.row_begin, row_begin) << name;
  EXPECT_EQ(linear.rows, rows) << name;
  EXPECT_EQ(linear.bias == nullptr ? "" : linear.bias->name, bias) << name;
}

TEST(LoadModel, Llama) {
  const auto model = Load(TinyLlama());
  EXPECT_EQ(model->architecture, "llama");
  EXPECT_EQ(model->name, "tiny llama");
  EXPECT_EQ(model->hidden_size, 8U);
  EXPECT_EQ(model->n_layers, 1U);
  EXPECT_EQ(model->n_heads, 2U);
  EXPECT_EQ(model->n_kv_heads, 1U);
  EXPECT_EQ(model->head_dim, 4U);
  EXPECT_EQ(model->ffn_size, 12U);
  EXPECT_EQ(model->context_tokens, 16U);
  EXPECT_EQ(model->vocab_size, 6U);
  EXPECT_EQ(model->activation, Activation::kSwiGlu);
  EXPECT_EQ(model->token_embedding->name, "token_embd.weight");
  EXPECT_EQ(model->position_embedding, nullptr);
  EXPECT_EQ(model->rope.dimensions, 4U);
  EXPECT_TRUE(model->rope.interleaved);
  ASSERT_EQ(model->layers.size(), 1U);
  const Layer& layer = model->layers[0];
  EXPECT_EQ(layer.attention_norm.kind, NormKind::kRms);
  EXPECT_EQ(layer.attention_norm.weight->name, "blk.0.attn_norm.weight");
  EXPECT_EQ(layer.attention_norm.bias, nullptr);
  EXPECT_EQ(layer.attention_norm.epsilon, 1e-6F);
  ExpectLinear(layer.wq, "blk.0.attn_q.weight", 0, 8);
  ExpectLinear(layer.wk, "blk.0.attn_k.weight", 0, 4);
  ExpectLinear(layer.wv, "blk.0.attn_v.weight", 0, 4);
  ExpectLinear(layer.wo, "blk.0.attn_output.weight", 0, 8);
  EXPECT_EQ(layer.ffn_norm.weight->name, "blk.0.ffn_norm.weight");
  ASSERT_TRUE(layer.ffn_gate.has_value());
  ExpectLinear(*layer.ffn_gate, "blk.0.ffn_gate.weight", 0, 12);
  ExpectLinear(layer.ffn_up, "blk.0.ffn_up.weight", 0, 12);
  ExpectLinear(layer.ffn_down, "blk.0.ffn_down.weight", 0, 8);
  EXPECT_EQ(model->output_norm.weight->name, "output_norm.weight");
  ExpectLinear(model->output, "output.weight", 0, 6);
}

TEST(LoadModel, LlamaWithBiasesTiedOutputAndHeadsOfTheirOwnSize) {
  GgufBuilder b = TinyLlama();
  b.RemoveTensor("output.weight");
  b.SetUint("llama.attention.key_length", 6).SetUint("llama.attention.value_length", 6);
  b.SetTensor("blk.0.attn_q.weight", {8, 12}).SetTensor("blk.0.attn_q.bias", {12});
  b.SetTensor("blk.0.attn_k.weight", {8, 6}).SetTensor("blk.0.attn_k.bias", {6});
  b.SetTensor("blk.0.attn_v.weight", {8, 6}).SetTensor("blk.0.attn_v.bias", {6});
  b.SetTensor("blk.0.attn_output.weight", {12, 8}).SetTensor("blk.0.attn_output.bias", {8});
  const auto model = Load(b);
  EXPECT_EQ(model->head_dim, 6U);
  ASSERT_EQ(model->layers.size(), 1U);
  ExpectLinear(model->layers[0].wq, "blk.0.attn_q.weight", 0, 12, "blk.0.attn_q.bias");
  ExpectLinear(model->layers[0].wk, "blk.0.attn_k.weight", 0, 6, "blk.0.attn_k.bias");
  ExpectLinear(model->layers[0].wv, "blk.0.attn_v.weight", 0, 6, "blk.0.attn_v.bias");
  ExpectLinear(model->layers[0].wo, "blk.0.attn_output.weight", 0, 8, "blk.0.attn_output.bias");
  ExpectLinear(model->output, "token_embd.weight", 0, 6);
}

TEST(LoadModel, Gpt2) {
  const auto model = Load(TinyGpt2());
  EXPECT_EQ(model->architecture, "gpt2");
  EXPECT_EQ(model->name, "memory.gguf") << "the file's name where it has no other";
  EXPECT_EQ(model->n_kv_heads, 2U);
  EXPECT_EQ(model->vocab_size, 5U);
  EXPECT_EQ(model->activation, Activation::kGelu);
  EXPECT_EQ(model->position_embedding->name, "position_embd.weight");
  EXPECT_EQ(model->rope.dimensions, 0U);
  ASSERT_EQ(model->layers.size(), 2U);
  const Layer& layer = model->layers[1];
  EXPECT_EQ(layer.attention_norm.kind, NormKind::kLayer);
  EXPECT_EQ(layer.attention_norm.bias->name, "blk.1.attn_norm.bias");
  EXPECT_EQ(layer.attention_norm.epsilon, 1e-5F);
  ExpectLinear(layer.wq, "blk.1.attn_qkv.weight", 0, 8, "blk.1.attn_qkv.bias");
  ExpectLinear(layer.wk, "blk.1.attn_qkv.weight", 8, 8, "blk.1.attn_qkv.bias");
  ExpectLinear(layer.wv, "blk.1.attn_qkv.weight", 16, 8, "blk.1.attn_qkv.bias");
  ExpectLinear(layer.wo, "blk.1.attn_output.weight", 0, 8, "blk.1.attn_output.bias");
  EXPECT_FALSE(layer.ffn_gate.has_value());
  ExpectLinear(layer.ffn_up, "blk.1.ffn_up.weight", 0, 16, "blk.1.ffn_up.bias");
  ExpectLinear(layer.ffn_down, "blk.1.ffn_down.weight", 0, 8, "blk.1.ffn_down.bias");
  EXPECT_EQ(model->output_norm.bias->name, "output_norm.bias");
  ExpectLinear(model->output, "token_embd.weight", 0, 5);
}

TEST(LoadModel, AModelWithoutAVocabularyCanBeRunByIds) {
  GgufBuilder b = TinyLlama();
  std::erase_if(b.keys, [](const auto& key) { return key.name.starts_with("tokenizer."); });
  EXPECT_EQ(Load(b)->vocab_size, 6U);
}

// What is kept under the state directory is named by it: a change of this value orphans all of
// that. The value was computed apart, by Debian's xxhsum -H2.
TEST(LoadModel, TheFingerprintNeverChangesForTheSameFile) {
  EXPECT_THAT(Load(TinyGpt2())->fingerprint,
              ::testing::ElementsAreArray({0x9a, 0x77, 0xd2, 0xea, 0x5c, 0xce, 0x78, 0x05, 0xb4,
                                           0xeb, 0xda, 0xde, 0xaa, 0x12, 0x49, 0x7c}));
}

TEST(LoadModel, TheFingerprintDependsOnHeaderSizeAndEveryTensor) {
  const auto original = Load(TinyLlama())->fingerprint;
  EXPECT_EQ(Load(TinyLlama())->fingerprint, original);
  EXPECT_NE(Load(TinyLlama().SetString("general.name", "tiny llamb"))->fingerprint, original);
  for (const auto& tensor : TinyLlama().tensors) {
    GgufBuilder b = TinyLlama();
    b.At(tensor.name).data.front() ^= 1;
    EXPECT_NE(Load(b)->fingerprint, original) << tensor.name;
  }
  const std::string longer = TinyLlama().Build() + '\0';
  EXPECT_NE((*LoadModel(*FileOf(longer)))->fingerprint, original);
}

TEST(LoadModel, TheFingerprintReadsTheFirst4KiBOfATensor) {
  GgufBuilder b = TinyLlama();
  b.SetUint("llama.feed_forward_length", 256);
  b.SetTensor("blk.0.ffn_gate.weight", {8, 256}).SetTensor("blk.0.ffn_up.weight", {8, 256});
  b.SetTensor("blk.0.ffn_down.weight", {256, 8});
  const auto original = Load(b)->fingerprint;
  b.At("blk.0.ffn_up.weight").data[4096] ^= 1;
  EXPECT_EQ(Load(b)->fingerprint, original);
  b.At("blk.0.ffn_up.weight").data[4095] ^= 1;
  EXPECT_NE(Load(b)->fingerprint, original);
}

// A file whose modification time moves with every look.
class ChangingFile final : public RandomAccessFile {
 public:
  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    return inner_->ReadAt(offset, out);
  }
  Result<FileIdentity> Identity() override {
    auto identity = inner_->Identity();
    if (identity.ok()) identity->modified_ns = ++now_;
    return identity;
  }
  [[nodiscard]] const std::string& path() const override { return inner_->path(); }

 private:
  const std::unique_ptr<RandomAccessFile> inner_ = TinyLlama().File();
  int64_t now_ = 0;
};

TEST(LoadModel, AFileThatChangesWhileItIsReadIsRefused) {
  ChangingFile file;
  const auto model = LoadModel(file);
  EXPECT_EQ(model.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(model.status().message(), "load dir/memory.gguf: the file changed while it was read");
}

}  // namespace
}  // namespace thimble
