// What both families share: choosing one, BOS and EOS, special tokens, ends, memory.
#include "daemon/model/tokenizer.h"

#include <gmock/gmock.h>
#include <malloc.h>

#include "tests/model/heap_watch.h"
#include "tests/model/tokenizer_test_util.h"

namespace thimble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

VocabFile ChatVocab() {
  return ByteLevelVocab("gpt-2", {"<|im_start|>", "<|im_end|>", "<|im", "<tool>", "<|endoftext|>"},
                        {3, 3, 4, 4, 1}, {});
}

TEST(Tokenizer, BuiltInModelEncodesWithItsOneSpecialTokenFirst) {
  TokenizerUnderTest tokenizer(BuiltInFile());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.IdsWith("Once upon a time", {}), ElementsAre(1023, 389, 390, 258, 371));
  EXPECT_EQ(tokenizer->bos(), 1023);
  EXPECT_THAT(tokenizer->end_tokens(), ElementsAre(1023));
  EXPECT_EQ(tokenizer->vocab_size(), 1024U);
  EXPECT_EQ(tokenizer.RoundTrip("Once upon a time"), "Once upon a time");
}

TEST(Tokenizer, SecondOpenUsesTheIndexThatIsThere) {
  TokenizerUnderTest tokenizer(BuiltInFile());
  ASSERT_OK(tokenizer.Open());
  const HeapWatch watch;
  ASSERT_OK(tokenizer.Open());
  EXPECT_LT(watch.peak_bytes(), 100U * 1024)
      << "building takes 21 bytes a token and a 64 KiB buffer";
  EXPECT_THAT(tokenizer.Ids("Once upon a time"), ElementsAre(389, 390, 258, 371));
}

TEST(Tokenizer, ControlTokensAreTextUnlessAskedFor) {
  TokenizerUnderTest tokenizer(ChatVocab().File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.Ids("a<|im_end|>b", true), ElementsAre('a', 257, 'b'));
  // "<|im" is user-defined: found in any text. The longest match comes first.
  EXPECT_THAT(tokenizer.Ids("a<|im_", false), ElementsAre('a', 258, '_'));
  EXPECT_THAT(tokenizer.Ids("<|im_end|>", false), ElementsAre(258, '_', 'e', 'n', 'd', '|', '>'));
  EXPECT_THAT(tokenizer.Ids("<tool><tool>x", false), ElementsAre(259, 259, 'x'));
}

TEST(Tokenizer, ControlTokensHaveNoBytesUnlessShown) {
  TokenizerUnderTest tokenizer(ChatVocab().File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_EQ(tokenizer->TokenBytes(256, false).value(), "");
  EXPECT_EQ(tokenizer->TokenBytes(256, true).value(), "<|im_start|>");
  EXPECT_EQ(tokenizer->TokenBytes(259, false).value(), "<tool>");
  EXPECT_EQ(tokenizer->Decode({256, 'h', 'i', 257}).value(), "hi");
}

TEST(Tokenizer, EndsAreNamedByTheFileOrKnownByTheirText) {
  VocabFile builder = ChatVocab();
  builder.SetUint("tokenizer.ggml.eos_token_id", 65).SetUint("tokenizer.ggml.eot_token_id", 66);
  TokenizerUnderTest tokenizer(builder.File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer->end_tokens(), ElementsAre(65, 66, 257, 260));
  // The file calls <|endoftext|> a normal token; it is a control token all the same.
  EXPECT_EQ(tokenizer->TokenBytes(260, false).value(), "");
  EXPECT_THAT(tokenizer.Ids("<|endoftext|>", true), ElementsAre(260));
}

TEST(Tokenizer, BosAndEosAreAddedWhereTheFileSaysSo) {
  VocabFile builder = ChatVocab();
  builder.SetUint("tokenizer.ggml.bos_token_id", 256).SetUint("tokenizer.ggml.eos_token_id", 257);
  {
    TokenizerUnderTest tokenizer(builder.File());
    ASSERT_OK(tokenizer.Open());
    EXPECT_THAT(tokenizer.IdsWith("a", {}), ElementsAre('a')) << "gpt-2 adds none by itself";
  }
  builder.SetBool("tokenizer.ggml.add_bos_token", true);
  builder.SetBool("tokenizer.ggml.add_eos_token", true);
  TokenizerUnderTest tokenizer(builder.File());
  ASSERT_OK(tokenizer.Open());
  EXPECT_THAT(tokenizer.IdsWith("a", {}), ElementsAre(256, 'a', 257));
  EXPECT_THAT(tokenizer.IdsWith("", {}), ElementsAre(256, 257));
  EXPECT_THAT(tokenizer.Ids(""), IsEmpty());
}

TEST(Tokenizer, IdsOutsideOfTheVocabularyAreErrorsAndPaddingHasNoBytes) {
  TokenizerUnderTest tokenizer(ChatVocab().File(), /*padding=*/3);
  ASSERT_OK(tokenizer.Open());
  EXPECT_EQ(tokenizer->vocab_size(), 264U);
  EXPECT_EQ(tokenizer->TokenBytes(263, true).value(), "");
  EXPECT_EQ(tokenizer->TokenBytes(264, true).status().code(), StatusCode::kOutOfRange);
  EXPECT_EQ(tokenizer->TokenBytes(-1, true).status().code(), StatusCode::kOutOfRange);
  EXPECT_EQ(tokenizer->Decode({'a', 9999}).status().code(), StatusCode::kOutOfRange);
}

TEST(Tokenizer, RefusesWhatItCannotReadNamingTheKey) {
  const auto refusal = [](const VocabFile& builder) {
    return TokenizerUnderTest(builder.File()).Open();
  };
  Status status = refusal(ChatVocab().SetString("tokenizer.ggml.model", "bert"));
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("\"bert\""));

  status = refusal(ChatVocab().SetString("tokenizer.ggml.pre", "klingon"));
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("\"klingon\""));

  status = refusal(ChatVocab().Remove("tokenizer.ggml.merges"));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("tokenizer.ggml.merges"));

  status = refusal(ChatVocab().Remove("tokenizer.ggml.tokens"));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("tokenizer.ggml.tokens"));

  status = refusal(ChatVocab().SetInts("tokenizer.ggml.token_type", {1, 1}));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("tokenizer.ggml.token_type has 2"));

  status = refusal(ChatVocab().SetUint("tokenizer.ggml.bos_token_id", 1000));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("tokenizer.ggml.bos_token_id is 1000"));

  status = refusal(ChatVocab().SetBool("tokenizer.ggml.add_bos_token", true));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("tokenizer.ggml.add_bos_token"));

  TokenizerUnderTest short_embedding(ChatVocab().File());
  short_embedding.model().vocab_size = 200;
  EXPECT_EQ(short_embedding.Open().code(), StatusCode::kInvalidArgument);
}

// As large as SmolLM2's: 256 bytes, 48,879 tokens of two bytes, and 17 control tokens.
TEST(Tokenizer, HoldsUnderOneMebibyteForAVocabularyOf49152) {
  std::vector<std::string> texts;
  std::vector<std::string> merges;
  for (uint32_t i = 0; i < 49152 - 256 - 17; ++i) {
    std::string merge;
    AppendAlphabetChar(static_cast<uint8_t>(i / 256), &merge);
    merge += ' ';
    AppendAlphabetChar(static_cast<uint8_t>(i % 256), &merge);
    merges.push_back(merge);
    texts.push_back(merge.erase(merge.find(' ', 1), 1));
  }
  std::vector<int32_t> kinds(texts.size(), 1);
  for (int i = 0; i < 17; ++i) {
    texts.push_back("<|special_" + std::to_string(i) + "|>");
    kinds.push_back(3);
  }
  TokenizerUnderTest tokenizer(ByteLevelVocab("smollm", texts, kinds, merges).File());
  const auto held = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t held_before = held();
  {
    const HeapWatch watch;
    ASSERT_OK(tokenizer.Open());
    EXPECT_LT(watch.peak_bytes(), 4U << 20) << "while building";
  }
  // What is on the heap in the end, LMDB's and PCRE2's own included (0 under AddressSanitizer).
  EXPECT_LT(held() - held_before, 1U << 20);
  const HeapWatch watch;
  ASSERT_OK(tokenizer.Open());
  const std::string text = "A prompt of some length, 1234 words or so. ";
  EXPECT_EQ(tokenizer.RoundTrip(text), text);
  EXPECT_LT(watch.peak_bytes(), 1U << 20) << "opening and encoding with the index built";
}

}  // namespace
}  // namespace thimble
