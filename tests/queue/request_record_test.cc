#include "daemon/queue/request_record.h"

#include <gtest/gtest.h>

#include <cmath>

namespace thimble {
namespace {

GenerationRequest Full() {
  GenerationRequest request;
  request.prompt = {1, 0, 49000, 2147483646};
  request.max_tokens = 77;
  request.sampling = {0.25F, 12, 0.5F, 0.125F, 1.5F, 33, -0.5F, 1.25F, 0xFEDCBA9876543210U};
  request.stop = {"a", std::string("\0\xFF\n", 3), std::string(256, 'z')};
  request.ignore_eos = true;
  return request;
}

TEST(RequestRecord, IsReadBackAsItWasWritten) {
  const ModelFingerprint model = {9, 8, 7};
  for (const bool detach : {false, true}) {
    GenerationRequest request = Full();
    request.detach = detach;
    const std::string bytes = EncodeRequest(request, model);
    const Result<RequestRecord> read = DecodeRequest(bytes);
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    EXPECT_EQ(read->model, model);
    EXPECT_EQ(read->request.prompt, request.prompt);
    EXPECT_EQ(read->request.stop, request.stop);
    EXPECT_EQ(read->request.sampling.seed, request.sampling.seed);
    EXPECT_EQ(read->request.detach, detach);
    EXPECT_TRUE(read->request.ignore_eos);
    EXPECT_EQ(EncodeRequest(read->request, model), bytes);
    EXPECT_NE(EncodeRequest(request, {1}), bytes);
  }
}

TEST(RequestRecord, EveryFieldIsInTheBytes) {
  const std::string bytes = EncodeRequest(Full(), {});
  const auto differs = [&](auto change) {
    GenerationRequest request = Full();
    change(request);
    EXPECT_NE(EncodeRequest(request, {}), bytes);
  };
  using R = GenerationRequest;
  differs([](R& r) { r.prompt.push_back(1); });
  differs([](R& r) { ++r.max_tokens; });
  differs([](R& r) { r.sampling.temperature = 1; });
  differs([](R& r) { r.sampling.top_k = 1; });
  differs([](R& r) { r.sampling.top_p = 1; });
  differs([](R& r) { r.sampling.min_p = 1; });
  differs([](R& r) { r.sampling.repeat_penalty = 1; });
  differs([](R& r) { r.sampling.repeat_last_n = 1; });
  differs([](R& r) { r.sampling.presence_penalty = 1; });
  differs([](R& r) { r.sampling.frequency_penalty = 1; });
  differs([](R& r) { r.sampling.seed = 1; });
  differs([](R& r) { r.stop.pop_back(); });
  differs([](R& r) { r.ignore_eos = false; });
  differs([](R& r) { r.detach = true; });
}

TEST(RequestRecord, TheFirstVersionsBytesStayAsTheyAre) {
  GenerationRequest request;
  request.prompt = {258};
  request.max_tokens = 3;
  request.sampling = {1.0F, 2, 0.5F, 0, 1.0F, 64, 0, 0, 5};
  request.stop = {"x"};
  const std::string bytes = EncodeRequest(request, {0xAA});
  std::string hex;
  for (const char c : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[static_cast<uint8_t>(c) >> 4];
    hex += kDigits[static_cast<uint8_t>(c) & 15];
  }
  EXPECT_EQ(hex,
            "01aa00000000000000000000000000000000"
            "030000000000803f020000000000003f00000000"
            "0000803f400000000000000000000000"
            "0500000000000000"
            "01010078"
            "0100000002010000");
}

TEST(RequestRecord, CutOrChangedBytesAreDataLossAndNothingWorse) {
  const std::string bytes = EncodeRequest(Full(), {});
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(DecodeRequest(bytes.substr(0, n)).status().code(), StatusCode::kDataLoss) << n;
  }
  EXPECT_EQ(DecodeRequest(bytes + "x").status().code(), StatusCode::kDataLoss);
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      const Result<RequestRecord> read = DecodeRequest(changed);
      if (read.ok()) {
        EXPECT_TRUE(ValidateSampling(read->request.sampling).ok());
        EXPECT_EQ(EncodeRequest(read->request, read->model), changed);
      } else {
        EXPECT_EQ(read.status().code(), StatusCode::kDataLoss);
      }
    }
  }
}

TEST(RequestOutcome, IsReadBackAsItWasWritten) {
  RequestResult result;
  result.reason = FinishReason::kError;
  result.error = ResourceExhaustedError("append rows: full");
  result.prompt_tokens = 3;
  result.cached_prompt_tokens = 2;
  result.generated_tokens = 1;
  result.timings = {0.5, 1.5, 2.5};
  const std::string bytes = EncodeOutcome(result);
  const Result<RequestResult> read = DecodeOutcome(bytes);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->reason, FinishReason::kError);
  EXPECT_EQ(read->error.ToString(), "RESOURCE_EXHAUSTED: append rows: full");
  EXPECT_EQ(read->prompt_tokens, 3U);
  EXPECT_EQ(read->cached_prompt_tokens, 2U);
  EXPECT_EQ(read->generated_tokens, 1U);
  EXPECT_EQ(read->timings.first_token, 1.5);
  EXPECT_EQ(EncodeOutcome(*read), bytes);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(DecodeOutcome(bytes.substr(0, n)).status().code(), StatusCode::kDataLoss) << n;
  }
  std::string bad_reason = bytes;
  bad_reason[1] = 7;
  EXPECT_EQ(DecodeOutcome(bad_reason).status().code(), StatusCode::kDataLoss);
  std::string bad_code = bytes;
  bad_code[2] = 17;
  EXPECT_EQ(DecodeOutcome(bad_code).status().code(), StatusCode::kDataLoss);
}

TEST(RequestTokens, AreTwoIntegersEach) {
  std::vector<int32_t> ints;
  AppendTokenInts(7, -0.25F, &ints);
  AppendTokenInts(0, -INFINITY, &ints);
  const auto tokens = DecodeTokens(ints);
  ASSERT_TRUE(tokens.ok());
  ASSERT_EQ(tokens->size(), 2U);
  EXPECT_EQ((*tokens)[0].id, 7);
  EXPECT_EQ((*tokens)[0].log_probability, -0.25F);
  EXPECT_EQ((*tokens)[1].log_probability, -INFINITY);
  ints.pop_back();
  EXPECT_EQ(DecodeTokens(ints).status().code(), StatusCode::kDataLoss);
}

TEST(FinishReason, HasANameForEachValue) {
  EXPECT_EQ(FinishReasonName(FinishReason::kLength), "length");
  EXPECT_EQ(FinishReasonName(FinishReason::kEndOfText), "end_of_text");
  EXPECT_EQ(FinishReasonName(FinishReason::kStop), "stop");
  EXPECT_EQ(FinishReasonName(FinishReason::kContext), "context");
  EXPECT_EQ(FinishReasonName(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(FinishReasonName(FinishReason::kError), "error");
}

}  // namespace
}  // namespace thimble
