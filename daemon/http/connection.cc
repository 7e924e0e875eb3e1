#include "daemon/http/connection.h"

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <utility>

#include "daemon/http/server.h"

namespace thimble {
namespace {

namespace http = boost::beast::http;

// What a request that could not be read is answered; 0: nothing, the connection is gone.
unsigned StatusOf(const boost::system::error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) return 431;
  if (error == http::error::body_limit) return 413;
  if (error == http::error::end_of_stream || error == http::error::partial_message) return 0;
  return error.category() == http::make_error_code(http::error::bad_method).category() ? 400 : 0;
}

HttpAnswer Refusal(unsigned status, std::string why) {
  HttpAnswer answer;
  answer.status = status;
  answer.body = std::move(why) + "\n";
  return answer;
}

}  // namespace

HttpConnection::HttpConnection(HttpServer& server, Socket socket)
    : server_(&server), socket_(std::move(socket)) {}

void HttpConnection::Start() { Read(State::kReading); }

void HttpConnection::Close() {
  server_ = nullptr;
  Error ignored;
  socket_.close(ignored);
}

void HttpConnection::Leave() {
  if (server_ == nullptr) return;
  HttpServer* server = server_;
  Close();
  server->Remove(this);
}

void HttpConnection::Enter(State state, Clock::duration limit) {
  state_ = state;
  since_ = Clock::now();
  deadline_ = since_ + limit;
}

void HttpConnection::Read(State state) {
  Enter(state, server_->timeout());
  parser_.emplace();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(0);
  http::async_read_header(socket_, buffer_, *parser_,
                          [self = shared_from_this()](const Error& error, size_t bytes) {
                            self->OnHeader(error, bytes);
                          });
}

void HttpConnection::OnHeader(const Error& error, size_t bytes) {
  if (server_ == nullptr) return;
  // The parser's limit leaves the first line out.
  const bool too_long = !error && bytes > kMaxHeaderBytes;
  if (!error && !too_long) {
    Serve();
    return;
  }
  switch (const unsigned status = too_long ? 431 : StatusOf(error)) {
    case 0:
      Leave();
      break;
    case 431:
      Write(Refusal(status, "the header has more than 8 KiB"), false, false);
      break;
    case 413:
      Write(Refusal(status, "requests have no body here"), false, false);
      break;
    default:
      Write(Refusal(status, "not HTTP/1: " + error.message()), false, false);
  }
}

void HttpConnection::Serve() {
  const Parser::value_type& request = parser_->get();
  if (parser_->chunked() || parser_->content_length().value_or(0) != 0) {
    Write(Refusal(413, "requests have no body here"), false, false);
    return;
  }
  const bool head = request.method() == http::verb::head;
  const bool keep_alive = parser_->keep_alive();
  if (!head && request.method() != http::verb::get) {
    Write(Refusal(405, "only GET and HEAD"), false, false);
    return;
  }
  if (request.version() != 10 && request.version() != 11) {
    Write(Refusal(505, "only HTTP/1.0 and HTTP/1.1"), head, false);
    return;
  }
  if (request.version() == 11 && request.find(http::field::host) == request.end()) {
    Write(Refusal(400, "HTTP/1.1 wants a Host"), head, false);  // RFC 9112, section 3.2
    return;
  }
  const std::string_view target(request.target().data(), request.target().size());
  HttpAnswer answer = server_->Answer(target);
  if (head) answer.events = false;
  Write(std::move(answer), head, keep_alive);
}

void HttpConnection::Write(HttpAnswer answer, bool head, bool keep_alive) {
  Enter(State::kWriting, server_->timeout());
  streaming_ = answer.events;
  keep_alive_ = keep_alive && !streaming_;
  header_ = HttpHeader(answer, keep_alive_);
  body_ = head ? std::string() : std::move(answer.body);
  if (streaming_) server_->StreamBegins();
  parser_.reset();
  const std::array<boost::asio::const_buffer, 3> parts = {
      boost::asio::buffer(header_), boost::asio::buffer(body_),
      head ? boost::asio::const_buffer()
           : boost::asio::const_buffer(answer.fixed.data(), answer.fixed.size())};
  boost::asio::async_write(socket_, parts,
                           [self = shared_from_this()](const Error& error, size_t /*bytes*/) {
                             self->OnWritten(error);
                           });
}

void HttpConnection::Push(const std::shared_ptr<const std::string>& event) {
  if (state_ != State::kStreaming) return;
  Enter(State::kWriting, server_->timeout());
  boost::asio::async_write(socket_, boost::asio::buffer(*event),
                           [self = shared_from_this(), event](
                               const Error& error, size_t /*bytes*/) { self->OnWritten(error); });
}

void HttpConnection::OnWritten(const Error& error) {
  if (server_ == nullptr) return;
  header_ = {};  // a connection that waits holds no answer
  body_ = {};
  if (error) {
    Leave();
  } else if (streaming_) {
    Enter(State::kStreaming, Clock::duration::zero());
    deadline_ = Clock::time_point::max();
  } else if (keep_alive_) {
    Read(buffer_.size() == 0 ? State::kBetween : State::kReading);
  } else {
    Error ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    Enter(State::kDraining, kDrainTime);
    Drain();
  }
}

void HttpConnection::Drain() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kMaxHeaderBytes),
                          [self = shared_from_this()](const Error& error, size_t /*bytes*/) {
                            if (self->server_ == nullptr) return;
                            if (error || ++self->drain_reads_ == kDrainReads) {
                              self->Leave();
                            } else {
                              self->Drain();
                            }
                          });
}

}  // namespace thimble
