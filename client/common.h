// What several commands need: exit codes, error messages, connecting. Called by: the commands.
// Memory: none kept.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/client.h"
#include "client/commands.h"
#include "storage/base/status.h"
#include "thimble/v1/thimble.pb.h"

namespace thimble {

// The exit codes of the process; scripts depend on them: never change these values.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNoConnection = 3;
inline constexpr int kExitInterrupted = 130;

// "5 61 72", separated by spaces or commas. INVALID_ARGUMENT naming the word that is no id.
Result<std::vector<int32_t>> ParseTokenIds(const std::string& text);

// `text`, or all of standard input where it is "-". INVALID_ARGUMENT, naming `what`, where that is
// not UTF-8.
Result<std::string> TextOrStandardInput(const std::string& what, const std::string& text);

Status CheckStops(const SamplingFlags& flags);

// "thimble: CODE: MESSAGE" on standard error and, with --json, an object on standard output.
void PrintError(const Status& status, bool json);

// A line on standard error: why it ended, counts and times.
void PrintStatistics(const v1::Done& done);

// What a person may do about a connection that failed, or nothing: one line, without its end.
std::string ConnectAdvice(const Status& status, const std::string& address);

// The connection, or the error printed and *exit_code set.
std::optional<Client> ConnectOrExplain(const std::string& address, bool json, int* exit_code);

}  // namespace thimble
