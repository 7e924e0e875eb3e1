// `thimble health`: an exit status for a container's HEALTHCHECK and for scripts; `thimble
// version`: of the command and of the daemon. Memory: one message.
#include <cstdio>

#include "client/client.h"
#include "client/common.h"
#include "client/json_line.h"

namespace thimble {

// 0 or 1 and nothing else, which is what Docker's HEALTHCHECK may return: no daemon is 1 too.
int RunHealthCommand(const std::string& connect, const HealthCommand& command) {
  int exit_code = kExitOk;
  std::optional<Client> client = ConnectOrExplain(connect, /*json=*/false, &exit_code);
  if (!client) return exit_code == kExitUsage ? kExitUsage : kExitFailed;
  const Result<bool> serving =
      client->IsServing(command.live ? "" : v1::Thimble::service_full_name());
  if (!serving.ok()) {
    PrintError(serving.status(), /*json=*/false);
    return kExitFailed;
  }
  if (!*serving) {
    const Result<v1::GetStatusResponse> status = client->GetStatus();
    const std::string reason = status.ok() ? status->not_ready_reason() : "";
    PrintError(UnavailableError("thimbled is not ready" + (reason.empty() ? "" : ": " + reason)),
               /*json=*/false);
    return kExitFailed;
  }
  if (!command.quiet) (void)std::printf("%s\n", command.live ? "alive" : "ready");
  return kExitOk;
}

int RunVersionCommand(const std::string& connect, const VersionCommand& command) {
  if (!command.json) (void)std::printf("thimble   %s\n", THIMBLE_VERSION);
  (void)std::fflush(stdout);
  int exit_code = kExitOk;
  std::optional<Client> client = ConnectOrExplain(connect, command.json, &exit_code);
  if (!client) return exit_code;
  const Result<v1::GetStatusResponse> status = client->GetStatus();
  if (!status.ok()) {
    PrintError(status.status(), command.json);
    return kExitFailed;
  }
  if (command.json) {
    (void)std::printf("%s\n", JsonLine()
                                  .Add("thimble", THIMBLE_VERSION)
                                  .Add("thimbled", status->version())
                                  .Add("model_name", status->model_name())
                                  .str()
                                  .c_str());
  } else {
    (void)std::printf("thimbled  %s (%s, %s)\n", status->version().c_str(), connect.c_str(),
                      status->model_name().c_str());
  }
  return kExitOk;
}

}  // namespace thimble
