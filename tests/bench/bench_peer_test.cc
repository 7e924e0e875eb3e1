#include "client/bench_peer.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

TEST(ParseLlamaTimings, ReadsWhatLlamaCompletionPrints) {
  const Result<BenchSample> sample = ParseLlamaTimings(
      "some text time = flies\n"
      "0.01 I common_perf_print:        load time =     405.89 ms\n"
      "0.01 I common_perf_print: prompt eval time =     755.33 ms /   255 tokens (    2.96 ms per "
      "token,   337.60 tokens per second)\n"
      "0.01 I common_perf_print:        eval time =     400.72 ms /    32 runs   (   12.52 ms per "
      "token,    79.86 tokens per second)\n"
      "0.01 I common_perf_print:       total time =    1305.76 ms /   287 tokens\n");
  ASSERT_TRUE(sample.ok()) << sample.status().ToString();
  EXPECT_DOUBLE_EQ(sample->prompt_tokens_per_second, 337.60);
  EXPECT_DOUBLE_EQ(sample->generation_tokens_per_second, 79.86);
}

TEST(ParseLlamaTimings, ReadsOlderReleasesAndOurOwnDriver) {
  const Result<BenchSample> sample = ParseLlamaTimings(
      "llama_perf_context_print: prompt eval time = 10.00 ms / 5 tokens ( 2.00 ms per token, "
      "500.00 "
      "tokens per second)\n"
      "eval time = 20.00 ms / 2 tokens (10.00 ms per token, 100.0000 tokens per second)\n");
  ASSERT_TRUE(sample.ok()) << sample.status().ToString();
  EXPECT_DOUBLE_EQ(sample->prompt_tokens_per_second, 500);
  EXPECT_DOUBLE_EQ(sample->generation_tokens_per_second, 100);
}

TEST(ParseLlamaTimings, RefusesAnOutputWithoutThem) {
  for (const char* output : {"", "eval time = 1 ms", "eval time = 5 ms ( x tokens per second)",
                             "eval time = 20 ms (10.0 ms per token, 100.0 tokens per second)"}) {
    EXPECT_EQ(ParseLlamaTimings(output).status().code(), StatusCode::kDataLoss) << output;
  }
}

}  // namespace
}  // namespace thimble
