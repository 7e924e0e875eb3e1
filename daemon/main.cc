// thimbled: options, the engine, the server, the loop. Exit status: 0 after SIGTERM or SIGINT, 1
// when something failed (the log says what), 2 for options that make no sense.
#include <malloc.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <functional>

#include "daemon/ceiling/program_pages.h"
#include "daemon/check_config.h"
#include "daemon/config_reload.h"
#include "daemon/config_sources.h"
#include "daemon/engine.h"
#include "daemon/event_loop.h"
#include "daemon/http/routes.h"
#include "daemon/http/server.h"
#include "daemon/log.h"
#include "daemon/rpc/server.h"
#include "daemon/sd_notify.h"

namespace thimble {
namespace {

// Before the first thread and the first large allocation: what the C library and the kernel would
// otherwise spend on speed that is not needed here.
void KeepProcessSmall() {
  ::mallopt(M_ARENA_MAX, 1);               // gRPC's helper threads would get one each
  ::mallopt(M_MMAP_THRESHOLD, 128 << 10);  // fixed; else it grows up to 32 MiB
  ::mallopt(M_TRIM_THRESHOLD, 128 << 10);  // free memory at the end of the heap goes back
  ::mallopt(M_TOP_PAD, 16 << 10);
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) == 0) {
    ::pthread_attr_setstacksize(&attributes, 256 << 10);
    ::pthread_setattr_default_np(&attributes);
    ::pthread_attr_destroy(&attributes);
  }
  // A huge page is 2 MiB of RAM for one byte in use: none but the arena's, which asks for them.
  // Kernels before 6.18 know no exception; there the heap and the stacks are too small to be given
  // any.
  constexpr unsigned long kExceptAdvised = 2;  // PR_THP_DISABLE_EXCEPT_ADVISED
  ::prctl(PR_SET_THP_DISABLE, 1, kExceptAdvised, 0, 0);
}

int Fail(const Status& status) {
  LogLine(LogLevel::kError, "failed").Add("error", status.ToString());
  return 1;
}

// Null where it is off.
Result<std::unique_ptr<HttpServer>> StartHttp(const Config& config, const Engine& engine,
                                              EventLoop& loop) {
  if (config.http == "off") return std::unique_ptr<HttpServer>();
  HttpOptions options;
  THIMBLE_ASSIGN_OR_RETURN(options.address, ParseListenAddress(config.http));
  const HttpSources sources{
      .status = engine, .plan = engine.plan(), .not_ready = [&loop] { return loop.not_ready(); }};
  THIMBLE_ASSIGN_OR_RETURN(
      std::unique_ptr<HttpServer> server,
      HttpServer::Start(loop.io(), options, MakeHttpRoutes(sources), MakeHttpEvents(sources)));
  loop.SetShortTick([http = server.get()] { return http->busy(); });
  return server;
}

// Other machines reach the address, and whoever does is served.
void WarnOfRemote(const char* option, const std::string& text) {
  const Result<ListenAddress> address = ParseListenAddress(text);
  if (!address.ok() || !address->remote) return;
  LogLine(LogLevel::kWarning, "remote")
      .Add("option", option)
      .Add("address", text)
      .Add("note", "other machines can connect: there is no authentication and no encryption");
}

int CheckConfig(const Invocation& invocation) {
  (void)std::fputs(DescribeOptions(invocation).c_str(), stdout);
  const Result<std::string> model = DescribeModel(invocation.config);
  if (!model.ok()) {
    (void)std::fprintf(stderr, "thimbled: %s\n", model.status().message().c_str());
    return 1;
  }
  (void)std::printf("# model: %s\n", model->c_str());
  return 0;
}

// `reread`: the options as they are now.
int Serve(Config config, const std::function<Result<Invocation>()>& reread) {
  SetLogLevel(config.log_level);
  Result<std::unique_ptr<Engine>> opened = Engine::Open(config);
  if (!opened.ok()) return Fail(opened.status());
  Engine& engine = **opened;

  RpcServerOptions options;
  Result<ListenAddress> address = ParseListenAddress(config.listen);
  if (!address.ok()) return Fail(address.status());
  options.address = *address;
  // Those the queue can hold, and some that are being refused or read their last events.
  options.reflection = config.reflection;
  options.max_streams = engine.max_active() + config.max_queue + 32;
  Result<std::unique_ptr<RpcServer>> server =
      RpcServer::Start(options, RpcServices{.scheduler = engine.scheduler(),
                                            .tokenizer = engine.tokenizer(),
                                            .status = engine,
                                            .model = engine.model(),
                                            .plan = engine.plan(),
                                            .context_tokens = engine.context_tokens()});
  if (!server.ok()) return Fail(server.status());

  Status status;
  {
    EventLoop loop(engine.scheduler(), **server);
    loop.WatchProgress([&engine] { return engine.progress(); });
    const Result<std::unique_ptr<HttpServer>> http = StartHttp(config, engine, loop);
    if (!http.ok()) return Fail(http.status());
    loop.SetRest([&engine] { engine.Rest(); });
    loop.SetTidy(DropProgramPageCache);
    loop.SetKeepRoom([&engine] { return engine.KeepRoom(); });
    loop.SetReload([&] { ApplyReread(reread(), config); });
    WarnOfRemote("listen", config.listen);
    WarnOfRemote("http", config.http);
    if (const Status kept = KeepProgramPages(); !kept.ok()) {
      LogLine(LogLevel::kWarning, "ceiling").Add("note", kept.message());
    }
    LogLine(LogLevel::kInfo, "ready").Add("listen", config.listen).Add("http", config.http);
    SdNotify("READY=1");
    status = loop.Run();
  }
  if (status.code() == StatusCode::kDeadlineExceeded) {
    // Calls that survive their cancellation would keep the destructors waiting for ever.
    Fail(status);
    std::_Exit(1);
  }
  server->reset();
  engine.Close();
  if (!status.ok()) return Fail(status);
  LogLine(LogLevel::kInfo, "stopped").Add("exit_status", 0);
  return 0;
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  thimble::KeepProcessSmall();
  (void)std::signal(SIGPIPE, SIG_IGN);
  thimble::PrepareGrpc();
  const auto read = [&] { return thimble::ReadOptions(argc, argv, environ); };
  const thimble::Result<thimble::Invocation> invocation = read();
  if (!invocation.ok()) {
    // One problem a line.
    const std::string& problems = invocation.status().message();
    for (size_t begin = 0, end = 0; begin <= problems.size(); begin = end + 1) {
      end = std::min(problems.find('\n', begin), problems.size());
      (void)std::fprintf(stderr, "thimbled: %s\n", problems.substr(begin, end - begin).c_str());
    }
    (void)std::fputs("thimbled: see thimbled --help\n", stderr);
    return 2;
  }
  if (!invocation->print.empty()) {
    (void)std::fputs(invocation->print.c_str(), stdout);
    return 0;
  }
  if (invocation->check) return thimble::CheckConfig(*invocation);
  return thimble::Serve(invocation->config, read);
}
