// What the journal keeps of a request: its record at acceptance, its tokens, and its outcome.
// docs/journal-records.md has the byte formats. Bytes read back are outside bytes: anything but a
// whole, valid record is DATA_LOSS.
// Called by: the scheduler. Memory: one record at a time (a prompt and 100 bytes).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/queue/request.h"

namespace thimble {

// As Model::fingerprint: tokens mean something only with the model they were accepted for.
using ModelFingerprint = std::array<uint8_t, 16>;

// All of the request but its name, which the journal keeps, and its client.
std::string EncodeRequest(const GenerationRequest& request, const ModelFingerprint& model);

// Whether `record` is that of `request`. A client that comes back may have changed its mind about
// `detach`: it says what happens to the request, not what the request is.
bool IsRecordOf(std::string_view record, const GenerationRequest& request,
                const ModelFingerprint& model);

struct RequestRecord {
  GenerationRequest request;  // without its name
  ModelFingerprint model{};
};
Result<RequestRecord> DecodeRequest(std::string_view bytes);

std::string EncodeOutcome(const RequestResult& result);
Result<RequestResult> DecodeOutcome(std::string_view bytes);

// Each token is two of the journal's integers: its id and the bits of its log probability.
inline constexpr uint32_t kJournalIntsPerToken = 2;
void AppendTokenInts(TokenId id, float log_probability, std::vector<int32_t>* ints);
struct EmittedToken {
  TokenId id = 0;
  float log_probability = 0;
};
Result<std::vector<EmittedToken>> DecodeTokens(std::span<const int32_t> ints);

}  // namespace thimble
