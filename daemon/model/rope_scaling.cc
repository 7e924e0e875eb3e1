#include "daemon/model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "daemon/model/gguf_cursor.h"

namespace thimble {
namespace {

// The pair that turns `turns` times within the original context (YaRN, equation 17's inverse).
double PairOfTurns(const RopeParameters& p, double turns) {
  return p.dimensions * std::log(p.original_context_tokens / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(p.freq_base));
}

Status ReadScaling(const ArchReader& reader, const Model& model, RopeParameters* p) {
  const std::string key = reader.Key("rope.scaling.type");
  THIMBLE_ASSIGN_OR_RETURN(const std::string type, reader.gguf().GetStringOr(key, "linear"));
  if (type == "none") return {};
  if (type != "linear" && type != "yarn") {
    return UnimplementedError("key " + key + ": \"" + Printable(type) +
                              "\"; thimble knows none, linear and yarn");
  }
  // Old converters wrote the factor as rope.scale_linear. In either, 0 means that there is none.
  for (const std::string_view name : {"rope.scaling.factor", "rope.scale_linear"}) {
    const auto found = reader.gguf().metadata.find(reader.Key(name));
    if (found == reader.gguf().metadata.end()) continue;
    if (const auto* number = std::get_if<double>(&found->second);
        number != nullptr && *number == 0) {
      break;
    }
    THIMBLE_ASSIGN_OR_RETURN(p->factor, reader.Positive(name));
    break;
  }
  if (type == "linear") return {};
  p->yarn = true;
  THIMBLE_ASSIGN_OR_RETURN(
      const uint32_t original,
      reader.CountOr("rope.scaling.original_context_length", model.context_tokens));
  p->original_context_tokens = original;
  THIMBLE_ASSIGN_OR_RETURN(p->extrapolation, reader.PositiveOr("rope.scaling.yarn_ext_factor", 1));
  THIMBLE_ASSIGN_OR_RETURN(const double attention,
                           reader.PositiveOr("rope.scaling.attn_factor", 1));
  THIMBLE_ASSIGN_OR_RETURN(const double yarn_attention,
                           reader.PositiveOr("rope.scaling.yarn_attn_factor", 1));
  p->attention_factor = attention * yarn_attention;
  THIMBLE_ASSIGN_OR_RETURN(p->beta_fast, reader.PositiveOr("rope.scaling.yarn_beta_fast", 32));
  THIMBLE_ASSIGN_OR_RETURN(p->beta_slow, reader.PositiveOr("rope.scaling.yarn_beta_slow", 1));
  return reader.Refuse("rope.scaling.yarn_log_multiplier", 0, "YaRN's magnitude with a multiplier");
}

Result<std::vector<float>> ReadFactors(ArchReader& reader, uint32_t n_pairs) {
  constexpr std::string_view kName = "rope_freqs.weight";
  THIMBLE_ASSIGN_OR_RETURN(const TensorInfo* const tensor, reader.OptionalVector(kName, n_pairs));
  if (tensor == nullptr) return std::vector<float>();
  THIMBLE_ASSIGN_OR_RETURN(std::vector<float> factors, reader.ReadValues(*tensor));
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0) {
      return InvalidArgumentError("tensor " + std::string(kName) + ": value " + std::to_string(i) +
                                  " is " + std::to_string(factors[i]) +
                                  ", expected a finite number above 0");
    }
  }
  return factors;
}

}  // namespace

Rope MakeRope(const RopeParameters& p, std::span<const float> factors) {
  Rope rope;
  rope.dimensions = p.dimensions;
  rope.interleaved = p.interleaved;
  double low = 0;
  double high = 0;
  if (p.yarn) {
    low = std::max(0.0, std::floor(PairOfTurns(p, p.beta_fast)));
    high = std::min(p.dimensions - 1.0, std::ceil(PairOfTurns(p, p.beta_slow)));
    rope.magnitude = static_cast<float>(p.attention_factor * (1 + 0.1 * std::log(p.factor)));
  }
  const uint32_t n_pairs = p.dimensions / 2;
  rope.inverse_frequency.resize(n_pairs);
  for (uint32_t i = 0; i < n_pairs; ++i) {
    double unscaled = std::pow(p.freq_base, -2.0 * i / p.dimensions);
    if (!factors.empty()) unscaled /= static_cast<double>(factors[i]);
    const double scaled = unscaled / p.factor;
    double keep = 0;  // how much of the unscaled frequency stays
    if (p.yarn) {
      const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      keep = (1 - ramp) * p.extrapolation;
    }
    rope.inverse_frequency[i] = static_cast<float>(scaled * (1 - keep) + unscaled * keep);
  }
  return rope;
}

Result<Rope> ReadRope(ArchReader& reader, const Model& model, bool interleaved) {
  RopeParameters parameters;
  parameters.interleaved = interleaved;
  THIMBLE_ASSIGN_OR_RETURN(parameters.dimensions,
                           reader.CountOr("rope.dimension_count", model.head_dim));
  if (parameters.dimensions % 2 != 0 || parameters.dimensions > model.head_dim) {
    return InvalidArgumentError(
        "key " + reader.Key("rope.dimension_count") + ": " + std::to_string(parameters.dimensions) +
        ", expected an even number up to the head's " + std::to_string(model.head_dim));
  }
  THIMBLE_ASSIGN_OR_RETURN(parameters.freq_base, reader.PositiveOr("rope.freq_base", 10000));
  if (parameters.freq_base <= 1) {
    return InvalidArgumentError("key " + reader.Key("rope.freq_base") + ": " +
                                std::to_string(parameters.freq_base) + ", expected more than 1");
  }
  THIMBLE_RETURN_IF_ERROR(ReadScaling(reader, model, &parameters));
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<float> factors,
                           ReadFactors(reader, parameters.dimensions / 2));
  return MakeRope(parameters, factors);
}

}  // namespace thimble
