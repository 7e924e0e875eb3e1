#include "client/common.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "client/event_json.h"
#include "client/json_line.h"
#include "client/utf8_check.h"

namespace thimble {

Result<std::vector<int32_t>> ParseTokenIds(const std::string& text) {
  constexpr std::string_view kSeparators = " ,\t\n";
  std::vector<int32_t> ids;
  size_t begin = text.find_first_not_of(kSeparators);
  while (begin != std::string::npos) {
    const size_t end = std::min(text.find_first_of(kSeparators, begin), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end || id < 0) {
      return InvalidArgumentError("--tokens: \"" + text.substr(begin, end - begin) +
                                  "\" is not a token id");
    }
    ids.push_back(id);
    begin = text.find_first_not_of(kSeparators, end);
  }
  if (ids.empty()) return InvalidArgumentError("--tokens \"" + text + "\": at least one id");
  return ids;
}

Result<std::string> TextOrStandardInput(const std::string& what, const std::string& text) {
  if (text != "-") {
    THIMBLE_RETURN_IF_ERROR(CheckUtf8(what, text));
    return text;
  }
  std::string input(std::istreambuf_iterator<char>(std::cin), {});
  THIMBLE_RETURN_IF_ERROR(CheckUtf8("standard input", input));
  return input;
}

Status CheckStops(const SamplingFlags& flags) {
  for (const std::string& stop : flags.stop) THIMBLE_RETURN_IF_ERROR(CheckUtf8("--stop", stop));
  return {};
}

void PrintError(const Status& status, bool json) {
  if (json) {
    const std::string line = JsonLine()
                                 .Add("event", "error")
                                 .Add("code", StatusCodeName(status.code()))
                                 .Add("message", status.message())
                                 .str();
    (void)std::printf("%s\n", line.c_str());
    (void)std::fflush(stdout);
  }
  (void)std::fprintf(stderr, "thimble: %s\n", status.ToString().c_str());
}

void PrintStatistics(const v1::Done& done) {
  const double seconds = done.total_seconds() - done.first_token_seconds();
  const uint32_t later = done.generated_tokens() > 0 ? done.generated_tokens() - 1 : 0;
  (void)std::fprintf(
      stderr,
      "thimble: %s; %u prompt tokens (%u cached), %u generated; queued %.3f s, first token "
      "%.3f s, total %.3f s; %.2f tokens/s\n",
      std::string(FinishReasonText(done.reason())).c_str(), done.prompt_tokens(),
      done.cached_prompt_tokens(), done.generated_tokens(), done.queued_seconds(),
      done.first_token_seconds(), done.total_seconds(), seconds > 0 ? later / seconds : 0.0);
}

std::string ConnectAdvice(const Status& status, const std::string& address) {
  switch (status.code()) {
    case StatusCode::kNotFound:
    case StatusCode::kUnavailable:
      return address == kDefaultAddress
                 ? "is thimbled running? As a service: systemctl status thimbled. A daemon that "
                   "listens elsewhere: --connect ADDRESS"
                 : "is thimbled running, with --listen " + address + "?";
    case StatusCode::kPermissionDenied:
      return "the socket is for its owner and its group: as root, usermod -aG thimble USER, then "
             "log in again";
    default:
      return {};
  }
}

std::optional<Client> ConnectOrExplain(const std::string& address, bool json, int* exit_code) {
  Result<Client> client = Client::Connect(address);
  if (client.ok()) return std::move(client).value();
  PrintError(client.status(), json);
  const std::string advice = ConnectAdvice(client.status(), address);
  if (!advice.empty()) (void)std::fprintf(stderr, "thimble: %s\n", advice.c_str());
  *exit_code =
      client.status().code() == StatusCode::kInvalidArgument ? kExitUsage : kExitNoConnection;
  return std::nullopt;
}

}  // namespace thimble
