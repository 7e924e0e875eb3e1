#include "daemon/queue/request_record.h"

#include <bit>
#include <cstring>
#include <type_traits>

namespace thimble {
namespace {

// On disk: never change these values.
constexpr uint8_t kVersion = 1;
constexpr uint8_t kIgnoreEos = 1;
constexpr uint8_t kDetach = 2;

template <typename T>
void Put(std::string* out, T value) {
  static_assert(std::is_unsigned_v<T>);
  for (size_t i = 0; i < sizeof(T); ++i) {
    out->push_back(static_cast<char>(static_cast<uint8_t>(value >> (8 * i))));
  }
}
void PutFloat(std::string* out, float value) { Put(out, std::bit_cast<uint32_t>(value)); }
void PutDouble(std::string* out, double value) { Put(out, std::bit_cast<uint64_t>(value)); }

// Takes values off the front; after the first that is not there all are zero, and ok() false.
class Parser {
 public:
  explicit Parser(std::string_view bytes) : rest_(bytes) {}

  std::string_view Take(size_t n) {
    if (n > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return taken;
  }
  template <typename T>
  T Get() {
    T value = 0;
    const std::string_view bytes = Take(sizeof(T));
    for (size_t i = 0; i < bytes.size(); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<uint8_t>(bytes[i])) << (8 * i));
    }
    return value;
  }
  float GetFloat() { return std::bit_cast<float>(Get<uint32_t>()); }
  double GetDouble() { return std::bit_cast<double>(Get<uint64_t>()); }
  [[nodiscard]] size_t left() const { return rest_.size(); }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

Status Damaged(const std::string& what, size_t bytes, const std::string& why) {
  return DataLossError("read " + what + " of " + std::to_string(bytes) + " bytes: " + why);
}

}  // namespace

std::string EncodeRequest(const GenerationRequest& request, const ModelFingerprint& model) {
  std::string out;
  out.reserve(100 + 4 * request.prompt.size());
  Put(&out, kVersion);
  out.append(reinterpret_cast<const char*>(model.data()), model.size());
  Put(&out,
      static_cast<uint8_t>((request.ignore_eos ? kIgnoreEos : 0) | (request.detach ? kDetach : 0)));
  Put(&out, request.max_tokens);
  const SamplingOptions& s = request.sampling;
  PutFloat(&out, s.temperature);
  Put(&out, s.top_k);
  PutFloat(&out, s.top_p);
  PutFloat(&out, s.min_p);
  PutFloat(&out, s.repeat_penalty);
  Put(&out, s.repeat_last_n);
  PutFloat(&out, s.presence_penalty);
  PutFloat(&out, s.frequency_penalty);
  Put(&out, s.seed);
  Put(&out, static_cast<uint8_t>(request.stop.size()));
  for (const std::string& stop : request.stop) {
    Put(&out, static_cast<uint16_t>(stop.size()));
    out += stop;
  }
  Put(&out, static_cast<uint32_t>(request.prompt.size()));
  for (const TokenId id : request.prompt) Put(&out, static_cast<uint32_t>(id));
  return out;
}

bool IsRecordOf(std::string_view record, const GenerationRequest& request,
                const ModelFingerprint& model) {
  std::string kept(record);
  std::string asked = EncodeRequest(request, model);
  const size_t flags = sizeof kVersion + model.size();
  if (kept.size() <= flags) return false;
  kept[flags] = static_cast<char>(kept[flags] & ~kDetach);
  asked[flags] = static_cast<char>(asked[flags] & ~kDetach);
  return kept == asked;
}

Result<RequestRecord> DecodeRequest(std::string_view bytes) {
  const auto damaged = [&](const std::string& why) {
    return Damaged("request record", bytes.size(), why);
  };
  Parser in(bytes);
  RequestRecord record;
  GenerationRequest& request = record.request;
  const auto version = in.Get<uint8_t>();
  if (version != kVersion) {
    return damaged("version " + std::to_string(version) + ", expected " + std::to_string(kVersion));
  }
  const std::string_view model = in.Take(record.model.size());
  if (!in.ok()) return damaged("cut short");
  std::memcpy(record.model.data(), model.data(), model.size());
  const auto flags = in.Get<uint8_t>();
  if ((flags & ~(kIgnoreEos | kDetach)) != 0) return damaged("unknown flags");
  request.ignore_eos = (flags & kIgnoreEos) != 0;
  request.detach = (flags & kDetach) != 0;
  request.max_tokens = in.Get<uint32_t>();
  SamplingOptions& s = request.sampling;
  s.temperature = in.GetFloat();
  s.top_k = in.Get<uint32_t>();
  s.top_p = in.GetFloat();
  s.min_p = in.GetFloat();
  s.repeat_penalty = in.GetFloat();
  s.repeat_last_n = in.Get<uint32_t>();
  s.presence_penalty = in.GetFloat();
  s.frequency_penalty = in.GetFloat();
  s.seed = in.Get<uint64_t>();
  const auto stops = in.Get<uint8_t>();
  for (unsigned i = 0; i < stops && in.ok(); ++i) {
    request.stop.emplace_back(in.Take(in.Get<uint16_t>()));
  }
  const auto n_prompt = in.Get<uint32_t>();
  if (!in.ok() || in.left() != uint64_t{4} * n_prompt) {
    return damaged("its length does not match its counts");
  }
  request.prompt.reserve(n_prompt);
  for (uint32_t i = 0; i < n_prompt; ++i) {
    request.prompt.push_back(static_cast<TokenId>(in.Get<uint32_t>()));
  }
  // The vocabulary and the context are the scheduler's to check.
  if (const Status valid = ValidateRequest(request, INT32_MAX, UINT32_MAX); !valid.ok()) {
    return damaged(valid.message());
  }
  return record;
}

std::string EncodeOutcome(const RequestResult& result) {
  std::string out;
  Put(&out, kVersion);
  Put(&out, static_cast<uint8_t>(result.reason));
  Put(&out, static_cast<uint8_t>(result.error.code()));
  Put(&out, result.prompt_tokens);
  Put(&out, result.cached_prompt_tokens);
  Put(&out, result.generated_tokens);
  PutDouble(&out, result.timings.queued);
  PutDouble(&out, result.timings.first_token);
  PutDouble(&out, result.timings.total);
  Put(&out, static_cast<uint32_t>(result.error.message().size()));
  out += result.error.message();
  return out;
}

Result<RequestResult> DecodeOutcome(std::string_view bytes) {
  const auto damaged = [&](const std::string& why) {
    return Damaged("request outcome", bytes.size(), why);
  };
  Parser in(bytes);
  RequestResult result;
  const auto version = in.Get<uint8_t>();
  if (version != kVersion) {
    return damaged("version " + std::to_string(version) + ", expected " + std::to_string(kVersion));
  }
  const auto reason = in.Get<uint8_t>();
  const auto code = in.Get<uint8_t>();
  result.prompt_tokens = in.Get<uint32_t>();
  result.cached_prompt_tokens = in.Get<uint32_t>();
  result.generated_tokens = in.Get<uint32_t>();
  result.timings.queued = in.GetDouble();
  result.timings.first_token = in.GetDouble();
  result.timings.total = in.GetDouble();
  const auto length = in.Get<uint32_t>();
  if (!in.ok() || in.left() != length) return damaged("its length does not match its counts");
  if (reason < static_cast<uint8_t>(FinishReason::kLength) ||
      reason > static_cast<uint8_t>(FinishReason::kError)) {
    return damaged("finish reason " + std::to_string(reason));
  }
  if (code > static_cast<uint8_t>(StatusCode::kDataLoss)) {
    return damaged("status code " + std::to_string(code));
  }
  result.reason = static_cast<FinishReason>(reason);
  if (code != 0) result.error = Status(static_cast<StatusCode>(code), std::string(in.Take(length)));
  return result;
}

void AppendTokenInts(TokenId id, float log_probability, std::vector<int32_t>* ints) {
  ints->push_back(id);
  ints->push_back(std::bit_cast<int32_t>(log_probability));
}

Result<std::vector<EmittedToken>> DecodeTokens(std::span<const int32_t> ints) {
  if (ints.size() % kJournalIntsPerToken != 0) {
    return DataLossError("read tokens: " + std::to_string(ints.size()) +
                         " integers, expected two for each token");
  }
  std::vector<EmittedToken> tokens;
  tokens.reserve(ints.size() / kJournalIntsPerToken);
  for (size_t i = 0; i < ints.size(); i += kJournalIntsPerToken) {
    tokens.push_back({ints[i], std::bit_cast<float>(ints[i + 1])});
  }
  return tokens;
}

}  // namespace thimble
