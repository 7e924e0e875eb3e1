// Frequencies against numbers computed apart, in double precision, by the formulas that Hugging
// Face's transformers uses (rope_init with "linear", "yarn").
#include "daemon/model/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/model/gguf_builder.h"
#include "tests/model/tiny_models.h"

namespace thimble {
namespace {

using ::testing::HasSubstr;

void ExpectFrequencies(const Rope& rope, const std::vector<double>& expected) {
  ASSERT_EQ(rope.inverse_frequency.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(rope.inverse_frequency[i], expected[i], expected[i] * 1e-6) << i;
  }
}

RopeParameters Plain(uint32_t dimensions) {
  RopeParameters parameters;
  parameters.dimensions = dimensions;
  return parameters;
}

TEST(RopeScaling, FrequenciesFallGeometrically) {
  const Rope rope = MakeRope(Plain(8), {});
  ExpectFrequencies(rope, {1, 0.1, 0.01, 0.001});
  EXPECT_EQ(rope.dimensions, 8U);
  EXPECT_EQ(rope.magnitude, 1.0F);
}

TEST(RopeScaling, LinearDividesEveryFrequency) {
  RopeParameters parameters = Plain(8);
  parameters.factor = 4;
  ExpectFrequencies(MakeRope(parameters, {}), {0.25, 0.025, 0.0025, 0.00025});
}

TEST(RopeScaling, FactorsDivideEachFrequency) {
  const std::vector<float> factors = {1, 2, 4, 8};
  ExpectFrequencies(MakeRope(Plain(8), factors), {1, 0.05, 0.0025, 0.000125});
}

TEST(RopeScaling, YarnKeepsFastPairsAndStretchesSlowOnes) {
  RopeParameters parameters = Plain(16);
  parameters.yarn = true;
  parameters.factor = 4;
  parameters.original_context_tokens = 2048;
  const Rope rope = MakeRope(parameters, {});
  ExpectFrequencies(
      rope, {1, 0.316227766, 0.1, 0.025693506, 0.00625, 0.00138349648, 0.00025, 7.90569415e-05});
  EXPECT_NEAR(rope.magnitude, 1.1386294361, 1e-6);

  parameters.factor = 8;
  parameters.original_context_tokens = 4096;
  parameters.beta_fast = 16;
  parameters.beta_slow = 2;
  parameters.attention_factor = 0.5;
  const Rope other = MakeRope(parameters, {});
  ExpectFrequencies(other, {1, 0.316227766, 0.1, 0.0316227766, 0.00708333333, 0.00131761569,
                            0.000125, 3.95284708e-05});
  EXPECT_NEAR(other.magnitude, 0.5 * 1.2079441542, 1e-6);
}

// Reads the rope of TinyLlama (head size 4, context 16) after `change`.
Result<Rope> Read(void (*change)(GgufBuilder&)) {
  GgufBuilder b = TinyLlama();
  change(b);
  const auto file = b.File();
  const auto gguf = ParseGguf(*file);
  EXPECT_TRUE(gguf.ok()) << gguf.status().ToString();
  ArchReader reader(*file, *gguf, "llama");
  Model model;
  model.head_dim = 4;
  model.context_tokens = 16;
  return ReadRope(reader, model, true);
}

std::string ErrorOf(void (*change)(GgufBuilder&)) { return Read(change).status().ToString(); }

TEST(RopeScaling, KeysAreReadAndMissingOnesHaveLlamasDefaults) {
  ExpectFrequencies(*Read([](GgufBuilder&) {}), {1, 0.01});
  ExpectFrequencies(*Read([](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", 100); }),
                    {1, 0.1});
  ExpectFrequencies(*Read([](GgufBuilder& b) { b.SetUint("llama.rope.dimension_count", 2); }), {1});
  ExpectFrequencies(*Read([](GgufBuilder& b) { b.SetFloat("llama.rope.scaling.factor", 2); }),
                    {0.5, 0.005});
  ExpectFrequencies(*Read([](GgufBuilder& b) { b.SetFloat("llama.rope.scaling.factor", 0); }),
                    {1, 0.01});
  ExpectFrequencies(*Read([](GgufBuilder& b) { b.SetFloat("llama.rope.scale_linear", 2); }),
                    {0.5, 0.005});
  ExpectFrequencies(*Read([](GgufBuilder& b) {
    b.SetString("llama.rope.scaling.type", "none");
    b.SetFloat("llama.rope.scaling.factor", 2);
  }),
                    {1, 0.01});
}

TEST(RopeScaling, YarnKeysAreRead) {
  const auto rope = Read([](GgufBuilder& b) {
    b.SetString("llama.rope.scaling.type", "yarn").SetFloat("llama.rope.scaling.factor", 4);
    b.SetUint("llama.rope.scaling.original_context_length", 8);
    b.SetFloat("llama.rope.scaling.attn_factor", 2);
  });
  ASSERT_TRUE(rope.ok()) << rope.status().ToString();
  // Pair 0 turns 8 / 2 pi = 1.27 times, between beta_slow and beta_fast, at the low end of the
  // ramp.
  ExpectFrequencies(*rope, {1, 0.0025});
  EXPECT_NEAR(rope->magnitude, 2 * 1.1386294361, 1e-6);
}

TEST(RopeScaling, FactorsComeFromTheFile) {
  const auto rope = Read([](GgufBuilder& b) {
    b.SetTensor("rope_freqs.weight", {2}).At("rope_freqs.weight").data =
        Bytes<float>(1) + Bytes<float>(32);
  });
  ExpectFrequencies(*rope, {1, 0.01 / 32});
}

TEST(RopeScaling, BadKeysAndFactorsAreNamed) {
  EXPECT_THAT(
      ErrorOf([](GgufBuilder& b) { b.SetUint("llama.rope.dimension_count", 3); }),
      HasSubstr("llama.rope.dimension_count: 3, expected an even number up to the head's 4"));
  EXPECT_THAT(ErrorOf([](GgufBuilder& b) { b.SetUint("llama.rope.dimension_count", 6); }),
              HasSubstr("llama.rope.dimension_count: 6, expected an even number"));
  EXPECT_THAT(ErrorOf([](GgufBuilder& b) { b.SetUint("llama.rope.dimension_count", 0); }),
              HasSubstr("llama.rope.dimension_count: 0, expected 1 to"));
  for (const auto set_base :
       {+[](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", 1); },
        +[](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", 0); },
        +[](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", NAN); },
        +[](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", INFINITY); }}) {
    EXPECT_THAT(ErrorOf(set_base), HasSubstr("INVALID_ARGUMENT: key llama.rope.freq_base: "));
  }
  EXPECT_THAT(
      ErrorOf([](GgufBuilder& b) { b.SetFloat("llama.rope.scaling.factor", -2); }),
      HasSubstr("key llama.rope.scaling.factor: -2.000000, expected a finite number above 0"));
  EXPECT_THAT(ErrorOf([](GgufBuilder& b) { b.SetString("llama.rope.scaling.type", "longrope"); }),
              HasSubstr("UNIMPLEMENTED: key llama.rope.scaling.type: \"longrope\""));
  EXPECT_THAT(ErrorOf([](GgufBuilder& b) { b.SetTensor("rope_freqs.weight", {3}); }),
              HasSubstr("tensor rope_freqs.weight: shape [3, 1], expected [2, 1]"));
  EXPECT_THAT(ErrorOf([](GgufBuilder& b) {
                b.SetTensor("rope_freqs.weight", {2}).At("rope_freqs.weight").data =
                    Bytes<float>(1) + Bytes<float>(0);
              }),
              HasSubstr("tensor rope_freqs.weight: value 1 is 0.000000, expected a finite number"));
}

}  // namespace
}  // namespace thimble
