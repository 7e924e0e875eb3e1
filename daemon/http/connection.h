// One HTTP connection: reads a request's header, hands it to the server, writes the answer, and
// again.
//
//   kReading -> kWriting -> kBetween -> kWriting -> ... -> kDraining (refused or last) -> closed
//                        -> kStreaming -> kWriting -> kStreaming -> ... (server-sent events)
//
// Only GET and HEAD without a body are served. What is malformed gets its status (400, 405, 413,
// 431) and the connection ends: after the answer what the client still sends is read and thrown
// away for a moment, or the kernel would reset the connection before the client has read the
// answer. A stream goes on until its client leaves; an event that finds the one before it still on
// its way is left out, and a client that takes nothing for the server's timeout is dropped. Called
// by: HttpServer. Memory: 9 KiB and one answer (what is fixed is sent from where it lies); the
// request's fields, 8 KiB at most; in the kernel HttpServer::kSendBuffer.
#pragma once

#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/core/flat_static_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/http/answer.h"

namespace thimble {

class HttpServer;

class HttpConnection final : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kMaxHeaderBytes = 8 << 10;

  // `server` lives until Close.
  HttpConnection(HttpServer& server, Socket socket);

  void Start();
  // The next event of a stream.
  void Push(const std::shared_ptr<const std::string>& event);
  // Ends it at once: the server is not called again.
  void Close();

  // When it is to be closed if nothing has happened by then.
  [[nodiscard]] Clock::time_point deadline() const { return deadline_; }
  // Since when it has been waiting for its client.
  [[nodiscard]] Clock::time_point since() const { return since_; }
  // False between two requests and between two events: nobody waits for an answer, so a client that
  // keeps its connection (as Prometheus does) does not keep the loop awake.
  [[nodiscard]] bool busy() const {
    return state_ != State::kBetween && state_ != State::kStreaming;
  }
  // It takes server-sent events.
  [[nodiscard]] bool streaming() const { return streaming_; }

 private:
  enum class State { kReading, kBetween, kWriting, kStreaming, kDraining };
  using Parser = boost::beast::http::request_parser<boost::beast::http::empty_body>;
  using Error = boost::system::error_code;
  static constexpr std::chrono::seconds kDrainTime{1};
  static constexpr int kDrainReads =
      32;  // of kMaxHeaderBytes: what a refused client may still send

  void Enter(State state, Clock::duration limit);
  void Read(State state);
  void OnHeader(const Error& error, size_t bytes);
  void Serve();
  // `head`: without the body.
  void Write(HttpAnswer answer, bool head, bool keep_alive);
  void OnWritten(const Error& error);
  void Drain();
  void Leave();  // closed by itself

  HttpServer* server_;
  Socket socket_;
  State state_ = State::kReading;
  Clock::time_point since_ = Clock::now();
  Clock::time_point deadline_;
  // Larger than what the parser may ask for: a full buffer with an unfinished header would never
  // end.
  boost::beast::flat_static_buffer<kMaxHeaderBytes + 1024> buffer_;
  std::optional<Parser> parser_;
  std::string header_;
  std::string body_;
  bool keep_alive_ = false;
  bool streaming_ = false;
  int drain_reads_ = 0;
};

}  // namespace thimble
