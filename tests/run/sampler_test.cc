// Every choice is checked against a reference written apart: sort everything, in long double.
#include "daemon/run/sampler.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "daemon/run/philox.h"
#include "storage/lmdb.h"

namespace thimble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class SamplerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "thimble-sampler-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    LmdbOptions options;
    options.map_bytes = 16 << 20;
    options.sync_commits = false;
    auto env = LmdbEnv::Open(directory_, options);
    ASSERT_TRUE(env.ok()) << env.status().ToString();
    env_ = std::move(env).value();
    auto store = StageStore::Open(*env_);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(store).value();
  }
  void TearDown() override {
    store_.reset();
    env_.reset();
    std::filesystem::remove_all(directory_);
  }

  Result<Sampler::Choice> Sample(const SamplingOptions& options, const std::vector<float>& logits,
                                 uint32_t index = 0, const std::vector<int32_t>& history = {},
                                 const std::vector<int32_t>& banned = {}, size_t tile = 97) {
    Sampler sampler(options, static_cast<uint32_t>(logits.size()), 3, store_.get());
    sampler.Begin(index, history, banned);
    for (size_t at = 0; at < logits.size(); at += tile) {
      const size_t n = std::min(tile, logits.size() - at);
      THIMBLE_RETURN_IF_ERROR(
          sampler.OnLogits(0, static_cast<uint32_t>(at), std::span(logits).subspan(at, n)));
    }
    return sampler.Finish();
  }

  std::string directory_;
  std::unique_ptr<LmdbEnv> env_;
  std::unique_ptr<StageStore> store_;
};

// The probability of every id, by the definitions of the methods.
std::vector<long double> ReferenceDistribution(const SamplingOptions& o,
                                               const std::vector<float>& logits,
                                               const std::vector<int32_t>& history,
                                               const std::vector<int32_t>& banned) {
  std::map<int32_t, int> counts;
  for (size_t back = 0; back < std::min<size_t>(history.size(), o.repeat_last_n); ++back) {
    ++counts[history[history.size() - 1 - back]];
  }
  struct Entry {
    size_t id;
    float logit;
    long double p;
  };
  std::vector<Entry> ranked;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id])) continue;
    if (std::find(banned.begin(), banned.end(), static_cast<int32_t>(id)) != banned.end()) continue;
    float logit = logits[id];
    if (const auto seen = counts.find(static_cast<int32_t>(id)); seen != counts.end()) {
      if (logit <= 0) {
        logit *= o.repeat_penalty;
      } else {
        logit /= o.repeat_penalty;
      }
      logit -= static_cast<float>(seen->second) * o.frequency_penalty + o.presence_penalty;
    }
    ranked.push_back({id, logit, 0});
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Entry& a, const Entry& b) { return a.logit > b.logit; });
  if (o.temperature == 0) ranked.resize(1);
  if (o.top_k > 0 && ranked.size() > o.top_k) ranked.resize(o.top_k);
  const long double max = ranked.front().logit;
  if (o.top_p < 1) {
    long double total = 0;
    for (Entry& e : ranked) total += e.p = std::exp(static_cast<long double>(e.logit) - max);
    long double mass = 0;
    size_t keep = 0;
    while (keep < ranked.size() && mass < static_cast<long double>(o.top_p) * total) {
      mass += ranked[keep++].p;
    }
    ranked.resize(std::max<size_t>(keep, 1));
  }
  if (o.min_p > 0) {
    std::erase_if(ranked, [&](const Entry& e) {
      return e.logit != max &&
             static_cast<long double>(e.logit) - max < std::log(static_cast<long double>(o.min_p));
    });
  }
  std::vector<long double> distribution(logits.size(), 0);
  long double total = 0;
  for (Entry& e : ranked) {
    const auto t = static_cast<long double>(o.temperature == 0 ? 1 : o.temperature);
    total += e.p = std::exp((static_cast<long double>(e.logit) - max) / t);
  }
  for (const Entry& e : ranked) distribution[e.id] = e.p / total;
  return distribution;
}

long double ReferenceLogProbability(const std::vector<float>& logits, size_t id) {
  long double max = -INFINITY;
  for (const float l : logits) {
    if (!std::isnan(l)) max = std::max(max, static_cast<long double>(l));
  }
  long double sum = 0;
  for (const float l : logits) {
    if (!std::isnan(l)) sum += std::exp(static_cast<long double>(l) - max);
  }
  return static_cast<long double>(logits[id]) - max - std::log(sum);
}

// The draw falls into the chosen token's share of [0, 1), tokens laid out by id.
void ExpectReferenceChoice(const SamplingOptions& options, const std::vector<float>& logits,
                           uint32_t index, const std::vector<long double>& distribution,
                           const Sampler::Choice& choice, const std::string& what) {
  long double before = 0;
  for (int32_t id = 0; id < choice.token; ++id) before += distribution[static_cast<size_t>(id)];
  const long double share = distribution[static_cast<size_t>(choice.token)];
  EXPECT_GT(share, 0) << what << ": token " << choice.token << " was cut off";
  const double u = UniformDraw(options.seed, index);
  EXPECT_GE(u, before - 1e-12L) << what;
  EXPECT_LE(u, before + share + 1e-12L) << what;
  EXPECT_NEAR(
      choice.log_probability,
      static_cast<double>(ReferenceLogProbability(logits, static_cast<size_t>(choice.token))), 1e-5)
      << what;
}

std::vector<float> RandomLogits(size_t n, std::mt19937& random, bool with_ties) {
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(n);
  for (float& l : logits) {
    l = normal(random);
    if (with_ties) l = std::round(l);
  }
  return logits;
}

TEST(Philox, MatchesTheKnownAnswersOfItsAuthors) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST_F(SamplerTest, AgreesWithAFullSortForEveryCombinationOfOptions) {
  std::mt19937 random(7);
  const size_t kVocab = 4100;  // three pieces of the store
  std::vector<int32_t> history;
  for (int i = 0; i < 200; ++i) history.push_back(static_cast<int32_t>(random() % 300));
  uint32_t index = 0;
  for (const bool ties : {false, true}) {
    const std::vector<float> logits = RandomLogits(kVocab, random, ties);
    for (const float temperature : {0.0F, 0.5F, 7.0F}) {
      for (const uint32_t top_k : {0U, 1U, 40U, 1024U, 1025U, 4000000000U}) {
        for (const float top_p : {0.05F, 0.95F, 1.0F}) {
          for (const float min_p : {0.0F, 0.05F, 1.0F}) {
            for (const bool penalties : {false, true}) {
              SamplingOptions o;
              o.temperature = temperature;
              o.top_k = top_k;
              o.top_p = top_p;
              o.min_p = min_p;
              o.seed = 1000 + index;
              std::vector<int32_t> banned;
              if (penalties) {
                o.repeat_penalty = 1.3F;
                o.presence_penalty = 0.5F;
                o.frequency_penalty = -0.25F;
                o.repeat_last_n = 100;
                banned = {4099, 0, 17};
              }
              const std::string what =
                  "k=" + std::to_string(top_k) + " p=" + std::to_string(top_p) +
                  " min_p=" + std::to_string(min_p) + " t=" + std::to_string(temperature) +
                  (ties ? " ties" : "") + (penalties ? " penalties" : "");
              const auto choice = Sample(o, logits, index, history, banned);
              ASSERT_TRUE(choice.ok()) << what << choice.status().ToString();
              const auto distribution = ReferenceDistribution(o, logits, history, banned);
              if (temperature == 0) {
                EXPECT_EQ(distribution[static_cast<size_t>(choice->token)], 1) << what;
              } else {
                ExpectReferenceChoice(o, logits, index, distribution, *choice, what);
              }
              ++index;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(store_->bytes_written(), 0U);
}

TEST_F(SamplerTest, TilesOfAnySizeGiveTheSameBits) {
  std::mt19937 random(11);
  const std::vector<float> logits = RandomLogits(4500, random, false);
  const std::vector<int32_t> history = {5, 5, 4400, 7};
  for (const uint32_t top_k : {0U, 40U}) {
    SamplingOptions o;
    o.top_k = top_k;
    o.temperature = 1.5F;
    o.repeat_penalty = 1.1F;
    for (uint32_t index = 0; index < 10; ++index) {
      const auto whole = Sample(o, logits, index, history, {9}, 4500);
      ASSERT_TRUE(whole.ok());
      for (const size_t tile : {1, 3, 64, 2040, 2041, 4499}) {
        const auto tiled = Sample(o, logits, index, history, {9}, tile);
        ASSERT_TRUE(tiled.ok());
        EXPECT_EQ(tiled->token, whole->token);
        EXPECT_EQ(tiled->log_probability, whole->log_probability);
      }
    }
  }
}

TEST_F(SamplerTest, WideAndNarrowDrawTheSameTokens) {
  std::mt19937 random(13);
  for (const size_t vocab : {1, 2, 50, 1000}) {
    for (const bool ties : {false, true}) {
      const std::vector<float> logits = RandomLogits(vocab, random, ties);
      SamplingOptions narrow;
      narrow.top_k = 1024;
      SamplingOptions wide = narrow;
      wide.top_k = 0;
      for (uint32_t index = 0; index < 200; ++index) {
        const auto a = Sample(narrow, logits, index);
        const auto b = Sample(wide, logits, index);
        ASSERT_TRUE(a.ok() && b.ok());
        EXPECT_EQ(a->token, b->token) << vocab << " " << index;
        EXPECT_EQ(a->log_probability, b->log_probability);
      }
    }
  }
}

TEST_F(SamplerTest, EqualLogitsRankByTheLowerId) {
  const std::vector<float> logits = {1, 2, 2, 2, 2, -0.0F, 0.0F};
  SamplingOptions o;
  o.top_p = 1;
  o.min_p = 0;
  o.temperature = 0;
  EXPECT_EQ(Sample(o, logits)->token, 1);
  o.temperature = 1;
  std::map<int32_t, int> drawn;
  // Wide by top_p: 2.5 of the four equal shares of mass make three of them.
  o.top_k = 0;
  const double top = 4 * std::exp(2.0);
  o.top_p = static_cast<float>(2.5 / 4 * top / (top + std::exp(1.0) + 2));
  for (uint32_t i = 0; i < 300; ++i) ++drawn[Sample(o, logits, i)->token];
  EXPECT_EQ(drawn.size(), 3U);
  EXPECT_TRUE(drawn.contains(1) && drawn.contains(2) && drawn.contains(3));
  drawn.clear();
  o.top_p = 1;
  o.top_k = 2;
  for (uint32_t i = 0; i < 300; ++i) ++drawn[Sample(o, logits, i)->token];
  EXPECT_EQ(drawn.size(), 2U);
  EXPECT_TRUE(drawn.contains(1) && drawn.contains(2));
}

TEST_F(SamplerTest, DrawsFollowTheDistribution) {
  std::mt19937 random(17);
  const std::vector<float> logits = RandomLogits(12, random, false);
  for (const uint32_t top_k : {0U, 12U}) {
    SamplingOptions o;
    o.top_k = top_k;
    o.top_p = 1;
    o.min_p = 0;
    o.temperature = 2;
    o.seed = 42;
    const auto expected = ReferenceDistribution(o, logits, {}, {});
    constexpr uint32_t kDraws = 100000;
    std::vector<uint32_t> drawn(12);
    Sampler sampler(o, 12, 0, store_.get());
    for (uint32_t i = 0; i < kDraws; ++i) {
      sampler.Begin(i, {}, {});
      ASSERT_TRUE(sampler.OnLogits(0, 0, logits).ok());
      ++drawn[static_cast<size_t>(sampler.Finish()->token)];
    }
    double chi_square = 0;
    for (size_t id = 0; id < 12; ++id) {
      const double e = static_cast<double>(expected[id]) * kDraws;
      chi_square += (drawn[id] - e) * (drawn[id] - e) / e;
    }
    EXPECT_LT(chi_square, 31.3) << "0.1% of fair samplers are above, 11 degrees of freedom";
    EXPECT_GT(chi_square, 1.0) << "and as few below: too even to be random";
  }
}

TEST_F(SamplerTest, TheDrawDependsOnSeedAndIndexAlone) {
  const std::vector<float> logits(100, 0.0F);
  SamplingOptions o;
  o.top_k = 100;
  std::vector<int32_t> first;
  Sampler used(o, 100, 0, nullptr);
  for (uint32_t i = 0; i < 50; ++i) {
    used.Begin(i, {}, {});
    ASSERT_TRUE(used.OnLogits(0, 0, logits).ok());
    first.push_back(used.Finish()->token);
  }
  EXPECT_GT((std::map<int32_t, int>{{first[0], 1}, {first[1], 1}, {first[2], 1}}).size(), 1U);
  for (uint32_t i = 50; i-- > 0;) EXPECT_EQ(Sample(o, logits, i)->token, first[i]);
  o.seed = 1;
  std::vector<int32_t> other;
  for (uint32_t i = 0; i < 50; ++i) other.push_back(Sample(o, logits, i)->token);
  EXPECT_NE(first, other);
}

TEST_F(SamplerTest, ExtremeLogitsAreTakenAsLimits) {
  for (const uint32_t top_k : {0U, 5U}) {
    SamplingOptions o;
    o.top_k = top_k;
    o.temperature = 1;
    EXPECT_EQ(Sample(o, {1e30F, -1e30F, 0})->token, 0);
    EXPECT_EQ(Sample(o, {0, kInf, 1e30F})->token, 1);
    EXPECT_EQ(Sample(o, {0, kInf, 1e30F})->log_probability, 0);
    for (uint32_t i = 0; i < 30; ++i) {
      EXPECT_EQ(Sample(o, {-kInf, kNan, -1000, -kInf}, i)->token, 2);
      EXPECT_NE(Sample(o, {kInf, 3, kInf}, i)->token, 1);
      EXPECT_NE(Sample(o, {-kInf, kNan, -kInf}, i)->token, 1);
    }
    o.temperature = 1e-30F;
    EXPECT_EQ(Sample(o, {1, 1.0000001F, 0.5F})->token, 1);
    o.temperature = 100;
    o.repeat_penalty = 1e-38F;
    EXPECT_TRUE(Sample(o, {1e30F, -1e30F, 0}, 0, {0, 1, 2, -5, 77}).ok());
    EXPECT_EQ(Sample(o, {4.0F})->token, 0);
    EXPECT_EQ(Sample(o, {4.0F})->log_probability, 0);
  }
}

TEST_F(SamplerTest, NothingToDrawIsDataLoss) {
  for (const float temperature : {0.0F, 1.0F}) {
    for (const uint32_t top_k : {0U, 5U}) {
      SamplingOptions o;
      o.temperature = temperature;
      o.top_k = top_k;
      EXPECT_EQ(Sample(o, {kNan, kNan}).status().code(), StatusCode::kDataLoss);
      EXPECT_EQ(Sample(o, {kNan, 1, kNan}, 0, {}, {1}).status().code(), StatusCode::kDataLoss);
      EXPECT_EQ(Sample(o, {kNan, 1, 9}, 0, {}, {2, 2})->token, 1);
    }
  }
}

TEST_F(SamplerTest, TheLogProbabilityIsTheModelsOwn) {
  SamplingOptions o;
  o.temperature = 0;
  o.repeat_penalty = 10;
  const std::vector<float> logits = {5, 4, 3};
  const auto choice = Sample(o, logits, 0, {0});
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->token, 1);
  EXPECT_NEAR(choice->log_probability, static_cast<double>(ReferenceLogProbability(logits, 1)),
              1e-6);
  // A penalised token that is chosen all the same keeps its own.
  const std::vector<float> sure = {50, 4, 3};
  const auto again = Sample(o, sure, 0, {0});
  EXPECT_EQ(again->token, 0);
  EXPECT_NEAR(again->log_probability, static_cast<double>(ReferenceLogProbability(sure, 0)), 1e-6);
}

TEST_F(SamplerTest, MissingOrMisplacedTilesAreInternalErrors) {
  Sampler sampler(SamplingOptions{}, 4, 0, nullptr);
  const std::vector<float> two = {1, 2};
  sampler.Begin(6, {}, {});
  ASSERT_TRUE(sampler.OnLogits(0, 0, two).ok());
  EXPECT_EQ(sampler.OnLogits(0, 3, two).code(), StatusCode::kInternal);
  EXPECT_EQ(sampler.OnLogits(1, 2, two).code(), StatusCode::kInternal);
  const Status missing = sampler.Finish().status();
  EXPECT_EQ(missing.code(), StatusCode::kInternal);
  EXPECT_EQ(missing.message(), "sample token 6: 2 of 4 logits arrived");
  ASSERT_TRUE(sampler.OnLogits(0, 2, two).ok());
  EXPECT_EQ(sampler.OnLogits(0, 4, two).code(), StatusCode::kInternal);
  // Beginning again forgets an unfinished row.
  sampler.Begin(6, {}, {});
  ASSERT_TRUE(sampler.OnLogits(0, 0, two).ok());
  ASSERT_TRUE(sampler.OnLogits(0, 2, two).ok());
  EXPECT_TRUE(sampler.Finish().ok());
}

TEST(ValidateSampling, NamesTheFieldItsValueAndItsRange) {
  EXPECT_TRUE(ValidateSampling({}).ok());
  const auto message = [](auto change) {
    SamplingOptions o;
    change(o);
    const Status status = ValidateSampling(o);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  using O = SamplingOptions;
  EXPECT_EQ(message([](O& o) { o.temperature = -1; }), "temperature -1: must be within [0, 100]");
  EXPECT_EQ(message([](O& o) { o.temperature = kNan; }),
            "temperature nan: must be within [0, 100]");
  EXPECT_EQ(message([](O& o) { o.temperature = kInf; }),
            "temperature inf: must be within [0, 100]");
  EXPECT_EQ(message([](O& o) { o.top_p = 0; }), "top_p 0: must be within (0, 1]");
  EXPECT_EQ(message([](O& o) { o.top_p = 1.5F; }), "top_p 1.5: must be within (0, 1]");
  EXPECT_EQ(message([](O& o) { o.min_p = -0.5F; }), "min_p -0.5: must be within [0, 1]");
  EXPECT_EQ(message([](O& o) { o.repeat_penalty = 0; }),
            "repeat_penalty 0: must be within (0, 10]");
  EXPECT_EQ(message([](O& o) { o.repeat_last_n = 1025; }),
            "repeat_last_n 1025: must be within [0, 1024]");
  EXPECT_EQ(message([](O& o) { o.presence_penalty = 3; }),
            "presence_penalty 3: must be within [-2, 2]");
  EXPECT_EQ(message([](O& o) { o.frequency_penalty = -3; }),
            "frequency_penalty -3: must be within [-2, 2]");
}

}  // namespace
}  // namespace thimble
