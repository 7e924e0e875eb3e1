#include "daemon/rpc/connections.h"

#include <fcntl.h>
#include <grpcpp/server_posix.h>
#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string_view>

#include "daemon/log.h"

namespace thimble {
namespace {

// So many connections must have gone before the heap is asked to give its free pages back.
constexpr size_t kTrimAfter = 8;

// Accepts one connection into *accepted and *duplicate and hands it to gRPC. False where there is
// nothing to accept.
bool AcceptOne(int listener, grpc::Server& server, int* accepted, int* duplicate) {
  const int connection = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ECONNABORTED || errno == EINTR) {
      return false;
    }
    LogLine(LogLevel::kWarning, "connection").Add("error", "accept").Add("number", errno);
    return false;
  }
  *duplicate = ::fcntl(connection, F_DUPFD_CLOEXEC, 0);
  if (*duplicate < 0) {
    LogLine(LogLevel::kWarning, "connection").Add("error", "duplicate").Add("number", errno);
    ::close(connection);
    return false;
  }
  *accepted = connection;
  grpc::AddInsecureChannelFromFd(&server, connection);
  return true;
}

}  // namespace

RpcConnections::RpcConnections(int listener, size_t max_connections)
    : max_connections_(max_connections) {
  watched_.reserve(max_connections + 1);
  watched_.push_back({listener, POLLIN, 0});
  peers_.reserve(max_connections + 1);
  peers_.emplace_back();
}

RpcConnections::~RpcConnections() {
  StopListening();
  for (size_t i = 1; i < watched_.size(); ++i) ::close(watched_[i].fd);
}

void RpcConnections::StopListening() {
  if (watched_[0].fd >= 0) ::close(watched_[0].fd);
  watched_[0].fd = -1;  // poll(2) passes over it
}

void RpcConnections::Release() {
  const size_t before = size();
  for (size_t i = watched_.size() - 1; i > 0; --i) {
    if ((watched_[i].revents & (POLLHUP | POLLERR | POLLNVAL)) == 0) continue;
    ::close(watched_[i].fd);
    watched_[i] = watched_.back();
    watched_.pop_back();
    peers_[i] = peers_.back();
    peers_.pop_back();
  }
  if (before >= kTrimAfter && size() < kTrimAfter) ::malloc_trim(0);
}

bool RpcConnections::AwaitFirst(std::chrono::milliseconds wait) {
  if (size() != 0 || watched_[0].fd < 0) return false;
  (void)::poll(watched_.data(), 1, static_cast<int>(wait.count()));
  return true;
}

void RpcConnections::Update(grpc::Server& server) {
  if (::poll(watched_.data(), watched_.size(), 0) <= 0) return;
  const bool waiting = (watched_[0].revents & POLLIN) != 0;
  Release();
  Peer peer;
  int duplicate = -1;
  while (waiting && size() < max_connections_ &&
         AcceptOne(watched_[0].fd, server, &peer.connection, &duplicate)) {
    watched_.push_back({duplicate, 0, 0});
    socklen_t length = sizeof peer.credentials;
    if (::getsockopt(duplicate, SOL_SOCKET, SO_PEERCRED, &peer.credentials, &length) != 0) {
      peer.credentials = {};
    }
    peers_.push_back(peer);
  }
}

std::optional<ucred> RpcConnections::PeerOf(const std::string& peer) const {
  constexpr std::string_view kPrefix = "fd:";  // what gRPC calls a connection that it was handed
  int connection = -1;
  if (peer.starts_with(kPrefix)) {
    std::from_chars(peer.data() + kPrefix.size(), peer.data() + peer.size(), connection);
  }
  // A number may be used again before its last connection's end is noticed: the newest one counts.
  for (size_t i = peers_.size() - 1; i > 0; --i) {
    if (peers_[i].connection != connection) continue;
    if (peers_[i].credentials.pid == 0) break;
    return peers_[i].credentials;
  }
  return std::nullopt;
}

}  // namespace thimble
