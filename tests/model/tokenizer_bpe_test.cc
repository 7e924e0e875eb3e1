// Byte-level BPE and its pre-tokenizers, against ids from Hugging Face's tokenizers.
#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <map>
#include <sstream>

#include "daemon/model/pretokenizer.h"
#include "tests/model/tokenizer_test_util.h"

namespace thimble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Pieces(std::string_view name, std::string_view text) {
  auto pretokenizer = Pretokenizer::Create(name);
  EXPECT_TRUE(pretokenizer.ok()) << pretokenizer.status().ToString();
  std::vector<std::string> pieces;
  EXPECT_OK((*pretokenizer)->Split(text, [&](std::string_view piece) -> Status {
    pieces.emplace_back(piece);
    return {};
  }));
  return pieces;
}

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

TEST(Pretokenizer, Gpt2KeepsASpaceWithTheWordBehindIt) {
  EXPECT_THAT(Pieces("gpt-2", "Hello  world's 123!!\n\nx"),
              ElementsAre("Hello", " ", " world", "'s", " 123", "!!", "\n", "\n", "x"));
}

TEST(Pretokenizer, SmollmTakesDigitsOneByOne) {
  EXPECT_THAT(Pieces("smollm", "in 1999 "), ElementsAre("in", " ", "1", "9", "9", "9", " "));
}

TEST(Pretokenizer, LlamaBpeTakesUpToThreeDigitsAndIgnoresCase) {
  EXPECT_THAT(Pieces("llama-bpe", "I'LL pay 12345.\n\n  ok"),
              ElementsAre("I", "'LL", " pay", " ", "123", "45", ".\n\n", " ", " ok"));
  EXPECT_EQ(Pieces("llama3", "x 1234"), Pieces("llama-v3", "x 1234"));
}

TEST(Pretokenizer, Qwen2TakesDigitsOneByOneAndLinesWithTheirEnds) {
  EXPECT_THAT(Pieces("qwen2", "a12;\r\n b"), ElementsAre("a", "1", "2", ";\r\n", " b"));
}

TEST(Pretokenizer, DefaultTakesPunctuationFirstAndDigitsByThree) {
  EXPECT_THAT(Pieces("default", "a, b 1234567"),
              ElementsAre("a", ",", " b", " ", "123", "456", "7"));
  EXPECT_EQ(Pieces("", "a, b 12"), Pieces("default", "a, b 12"));
}

TEST(Pretokenizer, InvalidBytesArePiecesOfTheirOwn) {
  EXPECT_THAT(Pieces("gpt-2", "ab\xFF\xC0 cd\xE2\x96"),
              ElementsAre("ab", "\xFF\xC0", " cd", "\xE2\x96"));
}

TEST(Pretokenizer, LongRunsOfOneKindOfCharacterAreLinear) {
  const auto begin = std::chrono::steady_clock::now();
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "qwen2", "default"}) {
    for (const std::string_view unit : {" ", "a", "!", "\n", "a ", "' "}) {
      std::string text;
      while (text.size() < 1 << 17) text += unit;
      std::string joined;
      for (const std::string& piece : Pieces(name, text)) joined += piece;
      EXPECT_EQ(joined, text) << name;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

// tests/reference/make_tokenizer_vectors.py has written the file.
TEST(BpeTokenizer, IdsEqualHuggingFacesForEveryVector) {
  std::ifstream vectors(THIMBLE_SOURCE_DIR "/tests/data/tokenizer_vectors.txt");
  std::map<std::string, std::unique_ptr<TokenizerUnderTest>> tokenizers;
  size_t n = 0;
  for (std::string line; std::getline(vectors, line); ++n) {
    const size_t first = line.find('\t');
    const size_t second = line.find('\t', first + 1);
    ASSERT_NE(second, std::string::npos) << line;
    const std::string name = line.substr(0, first);
    auto& tokenizer = tokenizers[name];
    if (!tokenizer) {
      tokenizer = std::make_unique<TokenizerUnderTest>(BuiltInFile());
      tokenizer->model().gguf.metadata["tokenizer.ggml.pre"] = name;
      ASSERT_OK(tokenizer->Open());
    }
    const std::string text = FromHex(line.substr(first + 1, second - first - 1));
    std::vector<TokenId> expected;
    std::istringstream ids(line.substr(second + 1));
    for (TokenId id = 0; ids >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer->Ids(text), expected) << name << ": " << text;
    EXPECT_EQ(tokenizer->RoundTrip(text), text);
  }
  EXPECT_EQ(n, 208U);
}

TEST(BpeTokenizer, EveryByteStringComesBackExactly) {
  TokenizerUnderTest tokenizer(BuiltInFile());
  ASSERT_OK(tokenizer.Open());
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(tokenizer.RoundTrip(all), all);
  uint64_t state = 1;
  for (int i = 0; i < 500; ++i) {
    const std::string text = RandomBytes(&state, 200);
    ASSERT_EQ(tokenizer.RoundTrip(text), text) << "iteration " << i;
  }
}

TEST(BpeTokenizer, TokenBytesJoinToTheText) {
  TokenizerUnderTest tokenizer(BuiltInFile());
  ASSERT_OK(tokenizer.Open());
  const std::string text = "naïve 漢字 😀 story";
  std::string joined;
  for (const TokenId id : tokenizer.Ids(text)) joined += tokenizer->TokenBytes(id, false).value();
  EXPECT_EQ(joined, text);
}

TEST(BpeTokenizer, AMegabyteOfOneLetterIsNotQuadratic) {
  const std::vector<std::string> powers = {"aa", "aaaa", "aaaaaaaa"};
  TokenizerUnderTest tokenizer(
      ByteLevelVocab("gpt-2", powers, {1, 1, 1}, {"a a", "aa aa", "aaaa aaaa"}).File());
  ASSERT_OK(tokenizer.Open());
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<TokenId> ids = tokenizer.Ids(std::string(1 << 20, 'a'));
  EXPECT_EQ(ids, std::vector<TokenId>((1 << 20) / 8, 258));
  // 2.5 s on a busy machine, for 2^20 symbols; a quadratic merge has 2^39 pairs to look at.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(BpeTokenizer, LowestRankFirstThenLeftmost) {
  TokenizerUnderTest tokenizer(
      ByteLevelVocab("gpt-2", {"bc", "ab", "aa"}, {1, 1, 1}, {"b c", "a b", "a a"}).File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("abc"), ElementsAre('a', 256));
  EXPECT_THAT(tokenizer.Ids("aaa"), ElementsAre(258, 'a'));
}

TEST(BpeTokenizer, MergesThatLeadToNoTokenOrToAControlTokenAreNotUsed) {
  TokenizerUnderTest tokenizer(
      ByteLevelVocab("gpt-2", {"<s", "<s>", "xy"}, {1, 3, 1}, {"< s", "<s >", "q r", "x y"})
          .File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("<s>"), ElementsAre('<', 's', '>'));  // two pieces: "<" and "s"
  EXPECT_THAT(tokenizer.Ids("qr"), ElementsAre('q', 'r'));
  EXPECT_THAT(tokenizer.Ids("xy"), ElementsAre(258));
}

TEST(BpeTokenizer, LlamaBpeTakesAWholePieceThatIsATokenWhateverItsMerges) {
  const std::vector<std::string> tokens = {"ab", "abc"};
  TokenizerUnderTest llama(ByteLevelVocab("llama-bpe", tokens, {1, 1}, {"a b"}).File());
  ASSERT_OK(llama.Open());
  EXPECT_THAT(llama.Ids("abc"), ElementsAre(257));
  TokenizerUnderTest gpt2(ByteLevelVocab("gpt-2", tokens, {1, 1}, {"a b"}).File());
  ASSERT_OK(gpt2.Open());
  EXPECT_THAT(gpt2.Ids("abc"), ElementsAre(256, 'c'));
}

TEST(BpeTokenizer, AByteWithoutATokenIsRefusedByName) {
  VocabFile builder;
  builder.SetString("tokenizer.ggml.model", "gpt2").SetString("tokenizer.ggml.pre", "gpt-2");
  builder.SetStrings("tokenizer.ggml.tokens", {"a", "b"}).SetStrings("tokenizer.ggml.merges", {});
  TokenizerUnderTest tokenizer(builder.File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("ab"), ElementsAre(0, 1));
  const auto ids = tokenizer->Encode("a\x04", {});
  EXPECT_EQ(ids.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(ids.status().message(), HasSubstr("byte 4"));
}

}  // namespace
}  // namespace thimble
