// The HTTP server: an accepting socket, at most max_connections of them, and answers by path. It
// runs on the io_context of the one thread and never blocks it.
//
// A connection has `timeout` to bring a whole request, however slowly it drips, and as long to take
// the answer. When all places are taken the newcomer gets that of the one whose client has kept it
// waiting longest: connections that say nothing can't shut the health checks out. At most
// max_streams take server-sent events, made once for all of them and only while there are any.
// Called by: main, the event loop (busy). Memory: what HttpConnection says, max_connections times,
// and one event.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/connection.h"
#include "daemon/rpc/listen_address.h"
#include "storage/base/status.h"

namespace thimble {

struct HttpOptions {
  ListenAddress address;
  size_t max_connections = 16;
  size_t max_streams = 4;
  std::chrono::milliseconds timeout = std::chrono::seconds(10);
  std::chrono::milliseconds event_interval = std::chrono::seconds(1);
};

// `query`: what stands behind the path's question mark.
using HttpHandler = std::function<HttpAnswer(std::string_view query)>;
// Makes the next server-sent event, blank line included.
using HttpEvents = std::function<std::string()>;
using HttpRoutes = std::map<std::string, HttpHandler, std::less<>>;

class HttpServer {
 public:
  // What the kernel may hold of an answer that its client does not take; it doubles the number.
  static constexpr int kSendBuffer = 16 << 10;

  // Listens. The error names the address; see Listen. `io` must outlive the server. `events`: for
  // the streams that a route's answer begins.
  static Result<std::unique_ptr<HttpServer>> Start(boost::asio::io_context& io,
                                                   const HttpOptions& options, HttpRoutes routes,
                                                   HttpEvents events = {});
  // Closes everything and removes a Unix socket. The io_context must not run again: its handlers
  // would come back here.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] size_t connections() const { return connections_.size(); }
  [[nodiscard]] size_t streams() const;
  // A client waits for an answer or is sending a request.
  [[nodiscard]] bool busy() const;

  // For the connections. `target`: a path, perhaps with a query.
  [[nodiscard]] HttpAnswer Answer(std::string_view target) const;
  void StreamBegins();
  void Remove(const HttpConnection* connection);
  [[nodiscard]] std::chrono::milliseconds timeout() const { return options_.timeout; }

 private:
  HttpServer(boost::asio::io_context& io, const HttpOptions& options, HttpRoutes routes,
             HttpEvents events);
  void AwaitClient();
  void Accept();
  void Take(int fd);
  void MakeRoom();
  void Rest();  // when the process is out of descriptors
  void AwaitSweep();
  void AwaitEvent();

  boost::asio::io_context& io_;
  const HttpOptions options_;
  const HttpRoutes routes_;
  const HttpEvents events_;
  boost::asio::posix::stream_descriptor listener_;
  boost::asio::steady_timer sweep_timer_;
  boost::asio::steady_timer rest_timer_;
  boost::asio::steady_timer event_timer_;
  bool events_awaited_ = false;
  std::vector<std::shared_ptr<HttpConnection>> connections_;
};

}  // namespace thimble
