#include "daemon/http/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "daemon/listener.h"
#include "daemon/log.h"

namespace thimble {
namespace {

using boost::system::error_code;

constexpr int kBacklog = 16;
constexpr std::chrono::seconds kRest{1};

}  // namespace

HttpServer::HttpServer(boost::asio::io_context& io, const HttpOptions& options, HttpRoutes routes,
                       HttpEvents events)
    : io_(io),
      options_(options),
      routes_(std::move(routes)),
      events_(std::move(events)),
      listener_(io),
      sweep_timer_(io),
      rest_timer_(io),
      event_timer_(io) {
  connections_.reserve(options_.max_connections);
}

Result<std::unique_ptr<HttpServer>> HttpServer::Start(boost::asio::io_context& io,
                                                      const HttpOptions& options, HttpRoutes routes,
                                                      HttpEvents events) {
  THIMBLE_ASSIGN_OR_RETURN(const int fd, Listen(options.address, kBacklog, "HTTP",
                                                "choose another with --http, or --http off"));
  std::unique_ptr<HttpServer> server(
      new HttpServer(io, options, std::move(routes), std::move(events)));
  error_code error;
  server->listener_.assign(fd, error);
  if (error) {
    ::close(fd);
    return ErrnoError(error.value(), "wait for HTTP clients on " + options.address.grpc);
  }
  server->AwaitClient();
  return server;
}

HttpServer::~HttpServer() {
  for (const auto& connection : connections_) connection->Close();
  if (listener_.is_open() && !options_.address.path.empty()) {
    (void)::unlink(options_.address.path.c_str());
  }
}

void HttpServer::AwaitClient() {
  listener_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [this](const error_code& error) {
                         if (error != boost::asio::error::operation_aborted) Accept();
                       });
}

void HttpServer::Accept() {
  // As many as there are places, then it is the others' turn.
  for (size_t n = 0; n < options_.max_connections; ++n) {
    const int fd =
        ::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      Take(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      Rest();
      return;
    } else if (errno == EAGAIN) {
      break;
    }
  }
  AwaitClient();
}

void HttpServer::Rest() {
  LogLine(LogLevel::kWarning, "http").Add("error", ErrnoError(errno, "accept").message());
  rest_timer_.expires_after(kRest);
  rest_timer_.async_wait([this](const error_code& error) {
    if (!error) AwaitClient();
  });
}

void HttpServer::Take(int fd) {
  HttpConnection::Socket socket(io_);
  const int family = options_.address.path.empty() ? AF_INET : AF_UNIX;
  error_code error;
  // The family only names the type; nothing is bound or connected through it.
  socket.assign(boost::asio::generic::stream_protocol(family, 0), fd, error);
  if (error) {
    ::close(fd);
    return;
  }
  // Where it is refused, the kernel's own bound holds.
  socket.set_option(boost::asio::socket_base::send_buffer_size(kSendBuffer), error);
  MakeRoom();
  connections_.push_back(std::make_shared<HttpConnection>(*this, std::move(socket)));
  if (connections_.size() == 1) AwaitSweep();
  connections_.back()->Start();
}

void HttpServer::MakeRoom() {
  if (connections_.size() < options_.max_connections) return;
  // Streams, which are few, last.
  const auto oldest =
      std::min_element(connections_.begin(), connections_.end(), [](const auto& a, const auto& b) {
        return std::pair(a->streaming(), a->since()) < std::pair(b->streaming(), b->since());
      });
  (*oldest)->Close();
  connections_.erase(oldest);
}

void HttpServer::Remove(const HttpConnection* connection) {
  std::erase_if(connections_, [=](const auto& other) { return other.get() == connection; });
}

size_t HttpServer::streams() const {
  return static_cast<size_t>(
      std::count_if(connections_.begin(), connections_.end(),
                    [](const auto& connection) { return connection->streaming(); }));
}

void HttpServer::StreamBegins() {
  if (!std::exchange(events_awaited_, true)) AwaitEvent();
}

void HttpServer::AwaitEvent() {
  event_timer_.expires_after(options_.event_interval);
  event_timer_.async_wait([this](const error_code& error) {
    if (error) return;
    events_awaited_ = streams() != 0;
    if (!events_awaited_ || !events_) return;
    const auto event = std::make_shared<const std::string>(events_());
    for (const auto& connection : connections_) connection->Push(event);
    AwaitEvent();
  });
}

bool HttpServer::busy() const {
  return std::any_of(connections_.begin(), connections_.end(),
                     [](const auto& connection) { return connection->busy(); });
}

void HttpServer::AwaitSweep() {
  sweep_timer_.expires_after(options_.timeout / 10);
  sweep_timer_.async_wait([this](const error_code& error) {
    if (error) return;
    const auto now = HttpConnection::Clock::now();
    std::erase_if(connections_, [now](const auto& connection) {
      const bool late = connection->deadline() <= now;
      if (late) connection->Close();
      return late;
    });
    if (!connections_.empty()) AwaitSweep();
  });
}

HttpAnswer HttpServer::Answer(std::string_view target) const {
  const size_t mark = target.find('?');
  const auto route = routes_.find(target.substr(0, mark));
  if (route == routes_.end()) return {.status = 404, .body = "nothing here\n"};
  HttpAnswer answer = route->second(mark == std::string_view::npos ? "" : target.substr(mark + 1));
  if (answer.events && streams() >= options_.max_streams) {
    return {.status = 503,
            .body = "as many as may watch are watching: " + std::to_string(streams()) + "\n",
            .fixed = {},
            .headers = "Retry-After: 10\r\n"};
  }
  return answer;
}

}  // namespace thimble
