// SentencePiece BPE: scores, byte fallback, the space prefix, exact round trips.
#include <gmock/gmock.h>

#include <chrono>

#include "tests/model/tokenizer_test_util.h"

namespace thimble {
namespace {

using ::testing::ElementsAre;

// U+2581, and with an a.
#define SP "\xE2\x96\x81"
constexpr const char* kSpA = SP "a";

// <unk> <s> </s>, the 256 byte tokens (ids 3 to 258), then `more` from id 259 with their scores.
VocabFile SpmVocab(const std::vector<std::string>& more, const std::vector<float>& more_scores,
                   bool bytes = true) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> kinds = {2, 3, 3};
  for (unsigned byte = 0; bytes && byte < 256; ++byte) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    tokens.push_back(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">");
    kinds.push_back(6);
  }
  std::vector<float> scores(tokens.size(), 0.0F);
  tokens.insert(tokens.end(), more.begin(), more.end());
  scores.insert(scores.end(), more_scores.begin(), more_scores.end());
  kinds.resize(tokens.size(), 1);
  VocabFile builder;
  builder.SetString("tokenizer.ggml.model", "llama")
      .SetStrings("tokenizer.ggml.tokens", tokens)
      .SetFloats("tokenizer.ggml.scores", scores)
      .SetInts("tokenizer.ggml.token_type", kinds)
      .SetUint("tokenizer.ggml.bos_token_id", 1)
      .SetUint("tokenizer.ggml.eos_token_id", 2)
      .SetUint("tokenizer.ggml.unknown_token_id", 0);
  return builder;
}

constexpr int kFirst = 259;

VocabFile Letters() {
  return SpmVocab({SP, "a", "b", "c", "ab", "bc", kSpA, "<", "s", ">", "<s"},
                  {-9, -9, -9, -9, -2, -1, -3, -9, -9, -9, -1});
}

TEST(SpmTokenizer, BosAndSpacePrefixByDefault) {
  TokenizerUnderTest tokenizer(Letters().File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.IdsWith("a", {}), ElementsAre(1, kFirst + 6));
  EXPECT_THAT(tokenizer.IdsWith("", {}), ElementsAre(1));
  EXPECT_THAT(tokenizer->end_tokens(), ElementsAre(2));
  EXPECT_EQ(tokenizer->TokenBytes(kFirst + 6, false).value(), " a");
  EXPECT_EQ(tokenizer->Decode({1, kFirst + 6}).value(), "a");
}

TEST(SpmTokenizer, WithoutSpacePrefixWhereTheFileSaysSo) {
  TokenizerUnderTest tokenizer(Letters().SetBool("tokenizer.ggml.add_space_prefix", false).File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("a"), ElementsAre(kFirst + 1));
  EXPECT_THAT(tokenizer.Ids(" a"), ElementsAre(kFirst + 6));
  EXPECT_EQ(tokenizer.RoundTrip(" a"), " a");
}

TEST(SpmTokenizer, HighestScoreFirstThenLeftmost) {
  TokenizerUnderTest tokenizer(Letters().File());
  ASSERT_OK(tokenizer.Open());
  // "bc" (-1) before "ab" (-2) and " a" (-3).
  EXPECT_THAT(tokenizer.Ids("abc"), ElementsAre(kFirst + 6, kFirst + 5));
  TokenizerUnderTest equal(SpmVocab({SP, "a", "aa"}, {-9, -9, -1}).File());
  ASSERT_OK(equal.Open());
  EXPECT_THAT(equal.Ids("aaa"), ElementsAre(kFirst, kFirst + 2, kFirst + 1));
}

TEST(SpmTokenizer, UnknownCharactersBecomeTheirBytes) {
  TokenizerUnderTest tokenizer(Letters().File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("é\n"), ElementsAre(kFirst, 3 + 0xC3, 3 + 0xA9, 3 + 0x0A));
  EXPECT_EQ(tokenizer->TokenBytes(3 + 0x0A, false).value(), "\n");
  EXPECT_EQ(tokenizer->TokenBytes(3, false).value(), std::string(1, '\0'));
}

TEST(SpmTokenizer, UnknownTokenWhereThereAreNoByteTokens) {
  TokenizerUnderTest tokenizer(SpmVocab({SP, "a"}, {-1, -1}, /*bytes=*/false).File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("aé"), ElementsAre(3, 4, 0));
}

TEST(SpmTokenizer, ControlAndByteTokensNeverComeFromText) {
  TokenizerUnderTest tokenizer(Letters().File());
  ASSERT_OK(tokenizer.Open());
  // "<s" and ">" join to the text of BOS.
  EXPECT_THAT(tokenizer.Ids("<s>"), ElementsAre(kFirst, kFirst + 10, kFirst + 9));
  EXPECT_THAT(tokenizer.Ids("<s>a", true), ElementsAre(1, kFirst + 6));
  EXPECT_EQ(tokenizer.RoundTrip("<0x41>"), "<0x41>");
}

TEST(SpmTokenizer, EveryByteStringComesBackExactly) {
  TokenizerUnderTest tokenizer(Letters().File());
  TokenizerUnderTest no_space(SpmVocab({"a", "aa"}, {-1, -2}).File());
  TokenizerUnderTest user_defined([] {
    VocabFile builder = SpmVocab({SP, "a", kSpA, "  ", "<0x41>x"}, {-1, -1, -1, 0, 0});
    std::vector<int32_t> kinds(kFirst + 5, 6);
    kinds[0] = 2;
    kinds[1] = kinds[2] = 3;
    for (int i : {kFirst, kFirst + 1, kFirst + 2}) kinds[i] = 1;
    kinds[kFirst + 3] = kinds[kFirst + 4] = 4;
    return builder.SetInts("tokenizer.ggml.token_type", kinds);
  }()
                                      .File());
  uint64_t state = 7;
  for (TokenizerUnderTest* each : {&tokenizer, &no_space, &user_defined}) {
    ASSERT_OK(each->Open());
    for (const char* text :
         {"", " ", "  ", "   a", SP, SP SP "a", "a" SP "b", " " SP " ", "a  b "}) {
      EXPECT_EQ(each->RoundTrip(text), text);
    }
    for (int i = 0; i < 500; ++i) {
      const std::string text = RandomBytes(&state, 120);
      ASSERT_EQ(each->RoundTrip(text), text) << "iteration " << i;
    }
  }
}

TEST(SpmTokenizer, BosIsTakenOffAgainInAFileWithoutKinds) {
  TokenizerUnderTest tokenizer(Letters().Remove("tokenizer.ggml.token_type").File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.IdsWith("a", {}), ElementsAre(1, kFirst + 6));
  EXPECT_EQ(tokenizer.RoundTrip(" ab"), " ab");
}

TEST(SpmTokenizer, AMegabyteOfOneLetterIsNotQuadratic) {
  TokenizerUnderTest tokenizer(SpmVocab({SP, "a", "aa", "aaaa"}, {-9, -9, -1, -2}).File());
  ASSERT_OK(tokenizer.Open());
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<TokenId> ids = tokenizer.Ids(std::string(1 << 20, 'a'));
  EXPECT_EQ(ids.size(), 1U + (1 << 20) / 4);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

}  // namespace
}  // namespace thimble
