// Files that are well-formed GGUF and no model that can be run: refused, by key or tensor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "daemon/model/model.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/tiny_models.h"

namespace thimble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void ExpectError(const GgufBuilder& builder, StatusCode code, const std::string& text) {
  const Status status = LoadModel(*builder.File()).status();
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_THAT(status.message(), AllOf(StartsWith("load dir/memory.gguf: "), HasSubstr(text)));
}
void ExpectInvalid(const GgufBuilder& builder, const std::string& text) {
  ExpectError(builder, StatusCode::kInvalidArgument, text);
}
void ExpectUnimplemented(const GgufBuilder& builder, const std::string& text) {
  ExpectError(builder, StatusCode::kUnimplemented, text);
}

TEST(LoadModelRefusal, Architecture) {
  ExpectInvalid(TinyLlama().Remove("general.architecture"), "key general.architecture: missing");
  ExpectInvalid(TinyLlama().SetUint("general.architecture", 1),
                "key general.architecture: an unsigned integer, expected a string");
  ExpectUnimplemented(TinyLlama().SetString("general.architecture", "mamba"),
                      "key general.architecture: \"mamba\"; thimble knows gpt2, llama");
}

TEST(LoadModelRefusal, OptionsOfTheWholeFile) {
  ExpectUnimplemented(TinyLlama().SetUint("general.quantization_version", 1),
                      "key general.quantization_version: 1; thimble reads version 2");
  ExpectUnimplemented(TinyLlama().SetUint("split.count", 3), "key split.count: one of 3 files");
}

TEST(LoadModelRefusal, SizesThatAreMissingZeroOrHuge) {
  for (const std::string suffix : {"block_count", "context_length", "embedding_length",
                                   "feed_forward_length", "attention.head_count"}) {
    const std::string key = "llama." + suffix;
    ExpectInvalid(TinyLlama().Remove(key), "key " + key + ": missing");
    ExpectInvalid(TinyLlama().SetUint(key, 0), "key " + key + ": 0, expected 1 to 2147483647");
    ExpectInvalid(TinyLlama().SetUint(key, UINT32_MAX),
                  "key " + key + ": 4294967295, expected 1 to");
    ExpectInvalid(TinyLlama().Set(key, GgufType::kInt32, Bytes<int32_t>(-8)),
                  "key " + key + ": -8 is negative");
    ExpectInvalid(TinyLlama().SetFloat(key, 8), "key " + key + ": a float, expected an integer");
    ExpectUnimplemented(TinyLlama().SetInts(key, {8}), "key " + key + ": a value for each layer");
  }
  ExpectInvalid(TinyLlama().SetUint("llama.attention.head_count_kv", 0),
                "key llama.attention.head_count_kv: 0, expected 1 to");
}

TEST(LoadModelRefusal, MoreLayersThanTheFileCanHold) {
  ExpectInvalid(TinyLlama().SetUint("llama.block_count", 2000000000),
                "key llama.block_count: 2000000000 layers in a file of 12 tensors");
  ExpectInvalid(TinyLlama().SetUint("llama.block_count", 2),
                "tensor blk.1.attn_norm.weight: missing");
}

TEST(LoadModelRefusal, FewerLayersThanTheFileHas) {
  ExpectUnimplemented(TinyGpt2().SetUint("gpt2.block_count", 1),
                      "tensor blk.1.attn_norm.weight: not one that thimble knows");
}

TEST(LoadModelRefusal, HeadsThatDoNotDivide) {
  ExpectInvalid(TinyLlama().SetUint("llama.attention.head_count", 3),
                "key llama.embedding_length: 8 is not divisible by the 3 of "
                "llama.attention.head_count");
  GgufBuilder b = TinyLlama();
  b.SetUint("llama.attention.head_count", 4).SetUint("llama.attention.head_count_kv", 3);
  ExpectInvalid(b, "key llama.attention.head_count_kv: 3 does not divide the 4");
  ExpectInvalid(TinyLlama().SetUint("llama.attention.head_count_kv", 4),
                "key llama.attention.head_count_kv: 4 does not divide the 2");
  ExpectInvalid(TinyLlama().SetUint("llama.attention.key_length", 0),
                "key llama.attention.key_length: 0");
  ExpectUnimplemented(TinyLlama().SetUint("llama.attention.value_length", 8),
                      "key llama.attention.value_length: 8");
}

TEST(LoadModelRefusal, Epsilon) {
  for (const float epsilon : {0.0F, -1e-5F, NAN, INFINITY}) {
    ExpectInvalid(TinyLlama().SetFloat("llama.attention.layer_norm_rms_epsilon", epsilon),
                  "key llama.attention.layer_norm_rms_epsilon: ");
    ExpectInvalid(TinyGpt2().SetFloat("gpt2.attention.layer_norm_epsilon", epsilon),
                  "key gpt2.attention.layer_norm_epsilon: ");
  }
  ExpectInvalid(TinyLlama().Remove("llama.attention.layer_norm_rms_epsilon"),
                "key llama.attention.layer_norm_rms_epsilon: missing");
}

TEST(LoadModelRefusal, EveryTensorThatIsMissing) {
  for (const GgufBuilder& good : {TinyLlama(), TinyGpt2()}) {
    for (const auto& tensor : good.tensors) {
      if (tensor.name == "output.weight") continue;  // the token embedding stands in for it
      GgufBuilder b = good;
      ExpectInvalid(b.RemoveTensor(tensor.name), "tensor " + tensor.name + ": missing");
    }
  }
}

TEST(LoadModelRefusal, EveryTensorOfAnotherShape) {
  for (const GgufBuilder& good : {TinyLlama(), TinyGpt2()}) {
    for (const auto& tensor : good.tensors) {
      const bool matrix = tensor.dimensions.size() == 2;
      const uint64_t columns = tensor.dimensions[0];
      const uint64_t rows = matrix ? tensor.dimensions[1] : 1;
      const auto shape = [](uint64_t c, uint64_t r) {
        return "[" + std::to_string(c) + ", " + std::to_string(r) + "]";
      };
      GgufBuilder wider = good;
      wider.SetTensor(tensor.name, {columns + 1, rows});
      ExpectInvalid(wider, "tensor " + tensor.name + ": shape " + shape(columns + 1, rows) +
                               ", expected " + shape(columns, rows));
      if (tensor.name == "token_embd.weight") continue;  // its rows are the vocabulary: below
      GgufBuilder taller = good;
      taller.SetTensor(tensor.name, {columns, rows + 1});
      ExpectInvalid(taller, "tensor " + tensor.name + ": shape " + shape(columns, rows + 1) +
                                ", expected " + shape(columns, rows));
    }
  }
}

TEST(LoadModelRefusal, AVocabularyOfAnotherSizeThanTheEmbedding) {
  ExpectInvalid(TinyGpt2().SetTensor("token_embd.weight", {8, 6}),
                "key tokenizer.ggml.tokens: 5 tokens, and tensor token_embd.weight has 6 rows");
}

TEST(LoadModelRefusal, AMalformedVocabulary) {
  ExpectInvalid(TinyLlama().SetStrings("tokenizer.ggml.tokens", {"", "", "", "<0xZZ>", "", ""}),
                "key tokenizer.ggml.tokens: element 3: byte token \"<0xZZ>\"");
}

TEST(LoadModelRefusal, TensorsOfMoreThanTwoDimensions) {
  ExpectUnimplemented(TinyLlama().SetTensor("blk.0.ffn_up.weight", {8, 12, 2}),
                      "tensor blk.0.ffn_up.weight: shape [8, 12, 2]: more than two dimensions");
  GgufBuilder ones = TinyLlama();
  ones.SetTensor("blk.0.ffn_up.weight", {8, 12, 1, 1});
  EXPECT_TRUE(LoadModel(*ones.File()).ok());
}

TEST(LoadModelRefusal, NormsAndBiasesThatAreNotFloat32) {
  GgufBuilder norm = TinyLlama();
  norm.At("blk.0.ffn_norm.weight").type = static_cast<uint32_t>(TensorType::kF16);
  ExpectUnimplemented(norm,
                      "tensor blk.0.ffn_norm.weight: type F16; thimble reads norms and biases");
  GgufBuilder bias = TinyGpt2();
  bias.At("blk.1.ffn_up.bias").type = static_cast<uint32_t>(TensorType::kBF16);
  ExpectUnimplemented(bias, "tensor blk.1.ffn_up.bias: type BF16");
}

TEST(LoadModelRefusal, TensorsThatWouldBeLeftOut) {
  ExpectUnimplemented(TinyLlama().SetTensor("blk.0.attn_q_norm.weight", {4}),
                      "tensor blk.0.attn_q_norm.weight: not one that thimble knows in architecture "
                      "llama");
  ExpectUnimplemented(TinyGpt2().SetTensor("output.bias", {5}), "tensor output.bias: not one");
}

TEST(LoadModelRefusal, VariantsThatComputeSomethingElse) {
  ExpectUnimplemented(TinyLlama().SetUint("llama.expert_count", 8),
                      "key llama.expert_count: 8.000000: mixtures of experts");
  ExpectUnimplemented(TinyLlama().SetUint("llama.attention.sliding_window", 4096),
                      "key llama.attention.sliding_window: 4096.000000: sliding-window attention");
  ExpectUnimplemented(TinyLlama().SetFloat("llama.logit_scale", 0.5F),
                      "key llama.logit_scale: 0.5");
  ExpectUnimplemented(TinyLlama().SetBool("llama.attention.causal", false),
                      "key llama.attention.causal: 0.000000: attention that is not causal");
  ExpectUnimplemented(TinyLlama().SetString("llama.expert_count", "x"),
                      "key llama.expert_count: mixtures of experts");
  GgufBuilder neutral = TinyLlama();
  neutral.SetUint("llama.expert_count", 0).SetFloat("llama.logit_scale", 1);
  EXPECT_TRUE(LoadModel(*neutral.File()).ok());
}

TEST(LoadModelRefusal, APositionEmbeddingShorterThanTheContext) {
  ExpectInvalid(TinyGpt2().SetUint("gpt2.context_length", 17),
                "tensor position_embd.weight: shape [8, 16], expected [8, 17]");
}

}  // namespace
}  // namespace thimble
