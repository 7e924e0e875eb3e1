// Norms, rope, activation functions, attention and half floats on every SIMD target, against double
// precision. The products are in kernels_matmul_test.cc.
#include "daemon/run/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/run/kernels_reference.h"

namespace thimble {
namespace {

std::vector<float> Normal(size_t n, std::mt19937& random, float mean = 0, float deviation = 1) {
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

// Runs body once per target, with the target's name in the failure messages.
template <class Body>
void OnEveryTarget(Body body) {
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    SCOPED_TRACE(KernelTarget());
    body();
    if (testing::Test::HasFatalFailure()) return;
  }
}

constexpr size_t kLengths[] = {1, 2, 3, 15, 16, 17, 31, 64, 65, 100, 288, 576, 1023};

TEST(Kernels, MoreThanOneTargetIsUnderTest) {
  std::set<std::string> names;
  OnEveryTarget([&names] { names.insert(KernelTarget()); });
  EXPECT_EQ(names.size(), KernelTargets().size());
  EXPECT_GE(names.size(), 1U);
#if defined(__x86_64__)
  EXPECT_GE(names.size(), 2U) << "any 64-bit x86 since 2006 has SSSE3 beside the scalar target";
#endif
}

TEST(RmsNorm, AgreesWithDoublePrecision) {
  std::mt19937 random(1);
  OnEveryTarget([&random] {
    for (const size_t n : kLengths) {
      std::vector<float> x = Normal(n, random, 0.3F, 2.0F);
      const std::vector<float> weight = Normal(n, random);
      double squares = 0;
      for (const float value : x) squares += double{value} * value;
      const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
      std::vector<float> out(n);
      RmsNorm(x.data(), weight.data(), 1e-5F, n, out.data());
      for (size_t i = 0; i < n; ++i) {
        const double exact = x[i] * scale * weight[i];
        ASSERT_NEAR(out[i], exact, 3e-7 * std::abs(exact)) << n << " " << i;
      }
      RmsNorm(x.data(), weight.data(), 1e-5F, n, x.data());
      ASSERT_EQ(x, out) << "in place";
    }
  });
}

TEST(LayerNorm, AgreesWithDoublePrecisionEvenFarFromZero) {
  std::mt19937 random(2);
  OnEveryTarget([&random] {
    for (const float centre : {0.0F, 100.0F}) {
      for (const size_t n : kLengths) {
        std::vector<float> x = Normal(n, random, centre, 1.0F);
        const std::vector<float> weight = Normal(n, random);
        const std::vector<float> bias = Normal(n, random);
        double mean = 0;
        for (const float value : x) mean += value;
        mean /= static_cast<double>(n);
        double variance = 0;
        for (const float value : x) variance += (value - mean) * (value - mean);
        variance /= static_cast<double>(n);
        std::vector<float> out(n);
        LayerNorm(x.data(), weight.data(), bias.data(), 1e-5F, n, out.data());
        for (size_t i = 0; i < n; ++i) {
          const double normal = (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i];
          ASSERT_NEAR(out[i], normal + bias[i], 3e-7 * (std::abs(normal) + std::abs(bias[i]))) << n;
        }
        LayerNorm(x.data(), weight.data(), bias.data(), 1e-5F, n, x.data());
        ASSERT_EQ(x, out) << "in place";
      }
    }
  });
}

TEST(ApplyRope, RotatesBothPairings) {
  std::mt19937 random(3);
  OnEveryTarget([&random] {
    for (const bool interleaved : {false, true}) {
      for (const size_t n_pairs : {1, 2, 7, 8, 16, 32, 48}) {
        const size_t untouched = 5;
        const std::vector<float> before = Normal(2 * n_pairs + untouched, random);
        std::vector<float> cosine(n_pairs);
        std::vector<float> sine(n_pairs);
        for (size_t i = 0; i < n_pairs; ++i) {
          const double angle = static_cast<double>(random() % 1000);
          cosine[i] = static_cast<float>(std::cos(angle));
          sine[i] = static_cast<float>(std::sin(angle));
        }
        std::vector<float> after = before;
        ApplyRope(after.data(), cosine.data(), sine.data(), n_pairs, interleaved);
        for (size_t i = 0; i < n_pairs; ++i) {
          const size_t first = interleaved ? 2 * i : i;
          const size_t second = interleaved ? 2 * i + 1 : i + n_pairs;
          const double a = before[first];
          const double b = before[second];
          ASSERT_NEAR(after[first], a * cosine[i] - b * sine[i], 1e-6);
          ASSERT_NEAR(after[second], a * sine[i] + b * cosine[i], 1e-6);
        }
        for (size_t i = 2 * n_pairs; i < before.size(); ++i) ASSERT_EQ(after[i], before[i]);
      }
    }
  });
}

TEST(Gelu, IsTheTanhFormToAMillionth) {
  OnEveryTarget([] {
    std::vector<float> x;
    for (int i = -1300; i <= 1300; ++i) x.push_back(static_cast<float>(i) * 0.00917F);
    x.push_back(0.0F);
    x.push_back(-1e4F);
    x.push_back(1e4F);
    std::vector<float> y = x;
    Gelu(y.data(), y.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = x[i];
      const double u = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
      const double exact = v / (1 + std::exp(-2 * u));
      // exp magnifies the rounding of its argument, 2u: three roundings of 2u, each |2u| / 2^24.
      ASSERT_NEAR(y[i], exact, (1e-6 + 4e-7 * std::abs(u)) * std::abs(exact) + 1e-33) << v;
      ASSERT_NEAR(y[i], 0.5 * v * (1 + std::tanh(u)), 1e-6 * std::abs(v)) << v;
    }
  });
}

TEST(SwiGlu, AgreesWithDoublePrecisionToAMillionth) {
  std::mt19937 random(4);
  OnEveryTarget([&random] {
    for (const size_t n : kLengths) {
      std::vector<float> gate = Normal(n, random, 0, 8);
      if (n > 3) {
        gate[0] = -200.0F;
        gate[1] = 200.0F;
        gate[2] = 0.0F;
      }
      std::vector<float> up = Normal(n, random);
      const std::vector<float> before = up;
      SwiGlu(gate.data(), up.data(), n);
      for (size_t i = 0; i < n; ++i) {
        const double exact = before[i] * (gate[i] / (1 + std::exp(-double{gate[i]})));
        ASSERT_NEAR(up[i], exact, 1e-6 * std::abs(exact) + 1e-34) << gate[i];
      }
    }
  });
}

TEST(Largest, PassesOverNaN) {
  std::mt19937 random(8);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  OnEveryTarget([&] {
    for (const size_t n : kLengths) {
      std::vector<float> x = Normal(n, random, -5, 2);
      ASSERT_EQ(Largest(x.data(), n), *std::max_element(x.begin(), x.end()));
      for (const size_t at : {size_t{0}, n / 2, n - 1}) {
        std::vector<float> with = x;
        with[at] = 100;
        ASSERT_EQ(Largest(with.data(), n), 100) << at << " of " << n;
        with[at] = infinity;
        ASSERT_EQ(Largest(with.data(), n), infinity) << at << " of " << n;
        with[at] = nan;
        std::vector<float> without = x;
        without[at] = -infinity;
        ASSERT_EQ(Largest(with.data(), n), *std::max_element(without.begin(), without.end()));
      }
      x.assign(n, nan);
      ASSERT_EQ(Largest(x.data(), n), -infinity);
    }
  });
}

TEST(SumOfExp, AgreesWithDoublePrecisionAndPassesOverNaN) {
  std::mt19937 random(9);
  OnEveryTarget([&random] {
    for (const size_t n : kLengths) {
      std::vector<float> x = Normal(n, random, 3, 6);
      const float max = *std::max_element(x.begin(), x.end());
      if (n > 3) {
        x[1] = std::numeric_limits<float>::quiet_NaN();
        x[2] = -std::numeric_limits<float>::infinity();
      }
      double sum = 0;
      for (const float v : x) {
        if (!std::isnan(v)) sum += std::exp(double{v} - double{max});
      }
      // A rounding of 2^-24 for each addition, where the target adds one by one.
      ASSERT_NEAR(SumOfExp(x.data(), n, max), sum, (1e-6 + 6e-8 * double(n)) * sum) << n;
    }
  });
}

TEST(AddInPlace, AddsEveryElement) {
  std::mt19937 random(5);
  OnEveryTarget([&random] {
    for (const size_t n : kLengths) {
      std::vector<float> y = Normal(n + 1, random);
      const std::vector<float> before = y;
      const std::vector<float> x = Normal(n, random);
      AddInPlace(y.data(), x.data(), n);
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(y[i], before[i] + x[i]);
      ASSERT_EQ(y[n], before[n]);
    }
  });
}

TEST(HalfToFloat, IsExactForAllHalves) {
  OnEveryTarget([] {
    std::vector<uint16_t> halves(65536 + 3);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    std::vector<float> floats(halves.size());
    HalfToFloat(halves.data(), halves.size(), floats.data());
    for (size_t i = 0; i < halves.size(); ++i) {
      const double exact = ReferenceHalf(halves[i]);
      if (std::isnan(exact)) {
        ASSERT_TRUE(std::isnan(floats[i])) << i;
      } else {
        ASSERT_EQ(floats[i], exact) << i;
        ASSERT_EQ(std::signbit(floats[i]), (halves[i] & 0x8000) != 0) << i;
      }
    }
  });
}

TEST(FloatToHalf, RoundsToNearestEven) {
  // Around every finite half: itself, the tie with the next, and the floats on either side of the
  // tie.
  std::vector<float> floats;
  std::vector<uint16_t> expected;
  for (uint16_t half = 0; half < 0x7C00; ++half) {
    const double here = ReferenceHalf(half);
    const double next = half == 0x7BFF ? 65536.0 : ReferenceHalf(static_cast<uint16_t>(half + 1));
    const auto tie = static_cast<float>((here + next) / 2);
    const auto up = static_cast<uint16_t>(half + 1);
    const std::pair<float, uint16_t> cases[] = {{static_cast<float>(here), half},
                                                {std::nextafter(tie, 0.0F), half},
                                                {tie, half % 2 == 0 ? half : up},
                                                {std::nextafter(tie, 1e6F), up}};
    for (const auto& [value, rounded] : cases) {
      floats.insert(floats.end(), {value, -value});
      expected.insert(expected.end(), {rounded, static_cast<uint16_t>(rounded | 0x8000)});
    }
  }
  for (const float huge : {65520.0F, 1e10F, INFINITY}) {
    floats.insert(floats.end(), {huge, -huge});
    expected.insert(expected.end(), {0x7C00, 0xFC00});
  }
  floats.insert(floats.end(), {1e-8F, 1e-40F});
  expected.insert(expected.end(), {0, 0});
  OnEveryTarget([&] {
    std::vector<uint16_t> halves(floats.size());
    FloatToHalf(floats.data(), floats.size(), halves.data());
    for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(halves[i], expected[i]) << floats[i];
    for (const float nan : {NAN, -NAN}) {
      const std::vector<float> nans(17, nan);
      FloatToHalf(nans.data(), nans.size(), halves.data());
      for (size_t i = 0; i < nans.size(); ++i) ASSERT_TRUE(std::isnan(ReferenceHalf(halves[i])));
    }
  });
}

TEST(Q8ToHalf, IsTheRoundedProductAlsoOverItsOwnInput) {
  // Every signed byte by scales of every exponent, subnormal and infinite products among them.
  std::vector<uint16_t> blocks;
  std::vector<uint16_t> expected;
  for (uint16_t scale = 0; scale < 0x7C00; scale = static_cast<uint16_t>(scale + 0x155)) {
    for (int first = -128; first < 128; first += 32) {
      blocks.push_back(scale);
      for (int q = first; q < first + 32; ++q) {
        const auto product = static_cast<float>(ReferenceHalf(scale) * q);  // 19 bits: exact
        FloatToHalf(&product, 1, &expected.emplace_back());
        if (q % 2 == 0) {
          const auto pair = static_cast<uint16_t>((q & 0xFF) | ((q + 1) & 0xFF) << 8);
          blocks.push_back(pair);
        }
      }
    }
  }
  OnEveryTarget([&] {
    std::vector<uint16_t> halves(expected.size());
    Q8ToHalf(blocks.data(), halves.size(), halves.data());
    ASSERT_EQ(halves, expected);
    uint16_t* in = halves.data() + halves.size() - blocks.size();
    std::ranges::copy(blocks, in);
    Q8ToHalf(in, halves.size(), halves.data());
    ASSERT_EQ(halves, expected) << "in place";
  });
}

// One query over n_tokens, blocks of 32, against the softmax written out in double.
void CheckAttention(size_t n_tokens, size_t head_dim, float deviation, std::mt19937& random) {
  const std::vector<float> q = Normal(head_dim, random, 0, deviation);
  const std::vector<float> kv = Normal(2 * n_tokens * head_dim, random);
  std::vector<uint16_t> halves(kv.size());
  FloatToHalf(kv.data(), kv.size(), halves.data());
  const uint16_t* keys = halves.data();
  const uint16_t* values = keys + n_tokens * head_dim;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));

  std::vector<double> scores(n_tokens);
  double max = -INFINITY;
  for (size_t t = 0; t < n_tokens; ++t) {
    for (size_t d = 0; d < head_dim; ++d) {
      scores[t] += q[d] * ReferenceHalf(keys[t * head_dim + d]);
    }
    scores[t] *= scale;
    max = std::max(max, scores[t]);
  }
  double sum = 0;
  std::vector<double> exact(head_dim);
  for (size_t t = 0; t < n_tokens; ++t) {
    const double weight = std::exp(scores[t] - max);
    sum += weight;
    for (size_t d = 0; d < head_dim; ++d) {
      exact[d] += weight * ReferenceHalf(values[t * head_dim + d]);
    }
  }

  AttentionState state;
  std::vector<float> acc(head_dim);
  for (size_t t = 0; t < n_tokens; t += 32) {
    // Copies of exactly the block's size, so that the sanitizer sees any read beyond it.
    const size_t n = std::min<size_t>(32, n_tokens - t);
    const std::vector<uint16_t> k(keys + t * head_dim, keys + (t + n) * head_dim);
    const std::vector<uint16_t> v(values + t * head_dim, values + (t + n) * head_dim);
    AttendBlock({.q = q.data(), .states = &state, .acc = acc.data()}, k.data(), v.data(), n,
                head_dim, scale);
  }
  FinishAttention(state, acc.data(), head_dim, acc.data());
  for (size_t d = 0; d < head_dim; ++d) {
    ASSERT_NEAR(acc[d], exact[d] / sum, 4e-6 * deviation)
        << n_tokens << " tokens, head " << head_dim << ", value " << d;
  }
}

TEST(AttendBlock, AgreesWithSoftmaxInDoubleOverOneToAHundredTokens) {
  std::mt19937 random(6);
  OnEveryTarget([&random] {
    for (size_t n_tokens = 1; n_tokens <= 100; ++n_tokens) CheckAttention(n_tokens, 64, 1, random);
  });
}

TEST(AttendBlock, TakesEveryHeadSizeAndPeakedScores) {
  std::mt19937 random(7);
  OnEveryTarget([&random] {
    for (const size_t head_dim : {1, 8, 20, 32, 48, 63, 80, 100, 128, 256}) {
      CheckAttention(45, head_dim, 1, random);
      CheckAttention(70, head_dim, 12, random);
    }
  });
}

TEST(AttendBlock, WhatAQueryGetsDoesNotDependOnTheOthers) {
  std::mt19937 random(8);
  OnEveryTarget([&random] {
    for (const size_t head_dim : {3, 20, 64, 100}) {
      constexpr size_t kStep = 2;
      constexpr size_t kLast = 9;  // as many as two calls of four, and one more
      const std::vector<float> q = Normal(kStep * kLast * head_dim, random, 0, 3);
      std::vector<uint16_t> kv(2 * 32 * head_dim);
      FloatToHalf(Normal(kv.size(), random).data(), kv.size(), kv.data());
      const uint16_t* keys = kv.data();
      const uint16_t* values = keys + 32 * head_dim;
      std::vector<AttentionState> alone(kStep * kLast);
      std::vector<float> alone_acc(q.size());
      for (size_t at = 0; at < kStep * kLast; at += kStep) {
        for (const size_t n_tokens : {32, 13}) {
          AttendBlock(
              {.q = &q[at * head_dim], .states = &alone[at], .acc = &alone_acc[at * head_dim]},
              keys, values, n_tokens, head_dim, 0.2F);
        }
      }
      for (size_t n = 1; n <= kLast; ++n) {
        std::vector<AttentionState> states(kStep * kLast);
        std::vector<float> acc(q.size());
        for (const size_t n_tokens : {32, 13}) {
          AttendBlock(
              {.q = q.data(), .states = states.data(), .acc = acc.data(), .n = n, .step = kStep},
              keys, values, n_tokens, head_dim, 0.2F);
        }
        for (size_t at = 0; at < kStep * kLast; ++at) {
          const bool asked = at % kStep == 0 && at < n * kStep;
          ASSERT_EQ(states[at].max, asked ? alone[at].max : AttentionState{}.max) << at;
          ASSERT_EQ(states[at].sum, asked ? alone[at].sum : 0.0F) << at;
          for (size_t i = at * head_dim; i < (at + 1) * head_dim; ++i) {
            ASSERT_EQ(acc[i], asked ? alone_acc[i] : 0.0F) << n << " queries, value " << i;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace thimble
