#include "daemon/model/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "tests/model/gguf_builder.h"
#include "tests/model/tiny_models.h"

namespace thimble {
namespace {

using ::testing::HasSubstr;

Status Validate(const GgufBuilder& builder) {
  const auto file = builder.File();
  const auto gguf = ParseGguf(*file);
  EXPECT_TRUE(gguf.ok()) << gguf.status().ToString();
  return ValidateVocabulary(*file, *gguf);
}

void ExpectInvalid(const GgufBuilder& builder, const std::string& text) {
  const Status status = Validate(builder);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
  EXPECT_THAT(status.message(), HasSubstr(text));
}

TEST(Vocabulary, BothFamiliesAndNoneAreAccepted) {
  EXPECT_TRUE(Validate(TinyLlama()).ok()) << Validate(TinyLlama()).ToString();
  EXPECT_TRUE(Validate(TinyGpt2()).ok()) << Validate(TinyGpt2()).ToString();
  EXPECT_TRUE(Validate(GgufBuilder()).ok());
}

TEST(Vocabulary, TokensMustBeStrings) {
  ExpectInvalid(TinyLlama().SetInts("tokenizer.ggml.tokens", {1, 2, 3, 4, 5, 6}),
                "key tokenizer.ggml.tokens: array of value type 5, expected 8");
  ExpectInvalid(TinyLlama().SetString("tokenizer.ggml.tokens", "abc"),
                "key tokenizer.ggml.tokens: a string, expected an array");
  ExpectInvalid(TinyLlama().SetStrings("tokenizer.ggml.tokens", {}),
                "key tokenizer.ggml.tokens: 0 tokens, expected 1 to 2147483647");
  ExpectInvalid(TinyLlama().SetStrings("tokenizer.ggml.tokens",
                                       {"a", std::string(65537, 'x'), "", "<0x41>", "", ""}),
                "key tokenizer.ggml.tokens: array element 1: string of 65537 bytes");
}

TEST(Vocabulary, ScoresMustBeFloatsOneAToken) {
  ExpectInvalid(TinyLlama().SetInts("tokenizer.ggml.scores", {1, 2, 3, 4, 5, 6}),
                "key tokenizer.ggml.scores: array of value type 5, expected 6");
  ExpectInvalid(TinyLlama().SetFloats("tokenizer.ggml.scores", {1, 2, 3, 4, 5}),
                "key tokenizer.ggml.scores: 5 elements for 6 tokens in tokenizer.ggml.tokens");
  ExpectInvalid(TinyLlama().SetFloats("tokenizer.ggml.scores", {1, 2, 3, 4, 5, 6, 7}),
                "key tokenizer.ggml.scores: 7 elements for 6 tokens");
  ExpectInvalid(TinyLlama().SetFloats("tokenizer.ggml.scores", {1, 2, 3, NAN, 5, 6}),
                "key tokenizer.ggml.scores: element 3: not a number");
}

TEST(Vocabulary, TypesMustBeKnownIntegersOneAToken) {
  ExpectInvalid(TinyLlama().SetFloats("tokenizer.ggml.token_type", {1, 2, 3, 4, 5, 6}),
                "key tokenizer.ggml.token_type: array of value type 6, expected 5");
  ExpectInvalid(TinyLlama().SetInts("tokenizer.ggml.token_type", {1, 1, 1}),
                "key tokenizer.ggml.token_type: 3 elements for 6 tokens");
  ExpectInvalid(TinyLlama().SetInts("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 7}),
                "key tokenizer.ggml.token_type: element 5: unknown token type 7");
  ExpectInvalid(TinyLlama().SetInts("tokenizer.ggml.token_type", {2, 3, 3, 6, -1, 1}),
                "key tokenizer.ggml.token_type: element 4: unknown token type -1");
}

TEST(Vocabulary, ByteTokensMustBeBytes) {
  for (const std::string text :
       {"<0xZZ>", "<0x4>", "<0x041>", "A", "", "<0x41", "0x41>  ", "<0x4g>", "<1x41>"}) {
    ExpectInvalid(
        TinyLlama().SetStrings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", text, "a", "b"}),
        "key tokenizer.ggml.tokens: element 3: byte token \"" + text + "\", expected \"<0x00>\"");
  }
  EXPECT_TRUE(Validate(TinyLlama().SetStrings("tokenizer.ggml.tokens",
                                              {"<unk>", "<s>", "</s>", "<0xfF>", "a", "<0xZZ>"}))
                  .ok())
      << "the last is not of type 6";
}

TEST(Vocabulary, AByteHasOneToken) {
  GgufBuilder b = TinyLlama();
  b.SetStrings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x4a>", "a", "<0x4A>"});
  b.SetInts("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 6});
  ExpectInvalid(b, "key tokenizer.ggml.tokens: element 5: byte token <0x4A> appears twice");

  std::vector<std::string> tokens;
  for (int i = 0; i < 256; ++i) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(i));
    tokens.emplace_back(text);
  }
  b.SetStrings("tokenizer.ggml.tokens", tokens);
  b.SetInts("tokenizer.ggml.token_type", std::vector<int32_t>(256, 6));
  b.SetFloats("tokenizer.ggml.scores", std::vector<float>(256, 0));
  EXPECT_TRUE(Validate(b).ok()) << Validate(b).ToString();
  tokens.emplace_back("<0x00>");
  b.SetStrings("tokenizer.ggml.tokens", tokens);
  b.SetInts("tokenizer.ggml.token_type", std::vector<int32_t>(257, 6));
  b.SetFloats("tokenizer.ggml.scores", std::vector<float>(257, 0));
  ExpectInvalid(b, "key tokenizer.ggml.token_type: element 256: more than 256 byte tokens");
}

TEST(Vocabulary, MergesMustBeTwoPiecesEach) {
  ExpectInvalid(TinyGpt2().SetInts("tokenizer.ggml.merges", {1}),
                "key tokenizer.ggml.merges: array of value type 5, expected 8");
  for (const std::string text : {"ab", "", " b", "a ", " "}) {
    ExpectInvalid(TinyGpt2().SetStrings("tokenizer.ggml.merges", {"a b", text}),
                  "key tokenizer.ggml.merges: element 1: \"" + text + "\", expected two pieces");
  }
}

TEST(Vocabulary, EachFamilyNeedsItsArrays) {
  ExpectInvalid(TinyLlama().Remove("tokenizer.ggml.tokens"),
                "key tokenizer.ggml.tokens: missing, and a \"llama\" vocabulary needs it");
  ExpectInvalid(TinyLlama().Remove("tokenizer.ggml.scores"), "key tokenizer.ggml.scores: missing");
  ExpectInvalid(TinyGpt2().Remove("tokenizer.ggml.merges"), "key tokenizer.ggml.merges: missing");
  ExpectInvalid(TinyGpt2().Remove("tokenizer.ggml.model"), "key tokenizer.ggml.model: missing");
  EXPECT_TRUE(Validate(TinyGpt2().Remove("tokenizer.ggml.token_type")).ok());
}

TEST(Vocabulary, SpecialTokensMustBeTokens) {
  for (const std::string name : {"bos", "eos", "eot", "eom", "unknown"}) {
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    EXPECT_TRUE(Validate(TinyLlama().SetUint(key, 5)).ok());
    ExpectInvalid(TinyLlama().SetUint(key, 6), "key " + key + ": token 6 of a vocabulary of 6");
    ExpectInvalid(TinyLlama().Set(key, GgufType::kInt32, Bytes<int32_t>(-1)),
                  "key " + key + ": -1 is negative");
    ExpectInvalid(TinyLlama().SetString(key, "x"),
                  "key " + key + ": a string, expected an integer");
  }
  EXPECT_TRUE(Validate(TinyLlama().SetUint("tokenizer.ggml.padding_token_id", UINT32_MAX)).ok());
}

}  // namespace
}  // namespace thimble
