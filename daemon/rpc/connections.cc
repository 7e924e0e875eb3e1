#include "daemon/rpc/connections.h"

#include <fcntl.h>
#include <grpcpp/server_posix.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include "daemon/log.h"

namespace thimble {
namespace {

// So many must be over before the heap is asked to give its free pages back.
constexpr size_t kTrimAfterConnections = 8;
constexpr size_t kTrimAfterCalls = 64;
// Accepted in one turn of the loop.
constexpr size_t kAcceptAtOnce = 16;

}  // namespace

RpcConnections::RpcConnections(int listener, size_t max_held,
                               std::function<Clock::time_point()> now)
    : max_held_(max_held), now_(std::move(now)) {
  watched_.reserve(max_held + kVisitors + 1);
  watched_.push_back({listener, POLLIN, 0});
  peers_.reserve(max_held + kVisitors + 1);
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

void RpcConnections::Remove(size_t index) {
  ::close(watched_[index].fd);
  watched_[index] = watched_.back();
  watched_.pop_back();
  peers_[index] = peers_.back();
  peers_.pop_back();
  ++released_;
}

void RpcConnections::Release() {
  for (size_t i = size(); i > 0; --i) {
    if ((watched_[i].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) Remove(i);
  }
}

// What a crowd has had of the heap stays there in pieces otherwise: 1.5 MiB after 400 calls.
void RpcConnections::TrimHeap() {
  if (released_ < kTrimAfterConnections && calls_ended_ < kTrimAfterCalls) return;
  for (const Peer& peer : peers_) {
    if (peer.calls > 0) return;
  }
  ::malloc_trim(0);
  released_ = calls_ended_ = 0;
}

void RpcConnections::TellAcceptFails(const char* what) {
  const int number = errno;
  if (std::exchange(accept_fails_, true)) return;
  LogLine(LogLevel::kWarning, "connection").Add("error", what).Add("number", number);
}

bool RpcConnections::Accept(grpc::Server& server) {
  Peer peer;
  peer.connection = ::accept4(watched_[0].fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (peer.connection < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ECONNABORTED && errno != EINTR) {
      TellAcceptFails("accept");
    }
    return false;
  }
  const int duplicate = ::fcntl(peer.connection, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) {
    TellAcceptFails("duplicate");
    ::close(peer.connection);
    return false;
  }
  socklen_t length = sizeof peer.credentials;
  if (::getsockopt(duplicate, SOL_SOCKET, SO_PEERCRED, &peer.credentials, &length) != 0) {
    peer.credentials = {};
  }
  accept_fails_ = false;
  peer.serial = ++last_serial_;
  peer.active = now_();
  watched_.push_back({duplicate, 0, 0});
  peers_.push_back(peer);
  grpc::AddInsecureChannelFromFd(&server, peer.connection);
  return true;
}

bool RpcConnections::CloseIdlest() {
  const Clock::time_point now = now_();
  size_t idlest = 0;
  for (size_t i = 1; i < peers_.size(); ++i) {
    const Peer& peer = peers_[i];
    const Clock::duration grace = peer.calls > 0 ? Clock::duration(kCallGrace) : kIdleGrace;
    if (peer.held > 0 || now - peer.active < grace) continue;
    if (idlest != 0 && peers_[idlest].active <= peer.active) continue;
    int unread = 0;  // a call may be on its way
    const bool quiet = ::ioctl(watched_[i].fd, FIONREAD, &unread) != 0 || unread == 0;
    if (quiet || peer.calls > 0) idlest = i;
  }
  if (idlest == 0) return false;
  ::shutdown(watched_[idlest].fd, SHUT_RDWR);  // gRPC sees its end
  Remove(idlest);
  return true;
}

void RpcConnections::Update(grpc::Server& server) {
  TrimHeap();
  if (::poll(watched_.data(), watched_.size(), 0) <= 0) return;
  Release();
  // Asked for each: no connection is closed for a newcomer that is not there.
  const auto waiting = [this] { return ::poll(watched_.data(), 1, 0) > 0; };
  for (size_t n = 0; n < kAcceptAtOnce && waiting(); ++n) {
    if (size() >= max_held_ + kVisitors && !CloseIdlest()) return;
    if (!Accept(server)) return;
  }
}

const RpcConnections::Peer* RpcConnections::Named(const std::string& peer) const {
  constexpr std::string_view kPrefix = "fd:";  // what gRPC calls a connection that it was handed
  int connection = -1;
  if (peer.starts_with(kPrefix)) {
    std::from_chars(peer.data() + kPrefix.size(), peer.data() + peer.size(), connection);
  }
  // A number may be used again before its last connection's end is noticed: the newest one counts.
  const Peer* named = nullptr;
  for (size_t i = 1; i < peers_.size(); ++i) {
    if (peers_[i].connection != connection) continue;
    if (named == nullptr || named->serial < peers_[i].serial) named = &peers_[i];
  }
  return named;
}

RpcConnections::Peer* RpcConnections::Find(uint64_t connection) {
  const auto found = std::find_if(peers_.begin() + 1, peers_.end(),
                                  [=](const Peer& peer) { return peer.serial == connection; });
  return found == peers_.end() ? nullptr : &*found;
}

uint64_t RpcConnections::CallBegan(const std::string& peer) {
  const Peer* named = Named(peer);
  if (named == nullptr) return 0;
  Peer& began = *Find(named->serial);
  ++began.calls;
  began.active = now_();
  return began.serial;
}

void RpcConnections::CallEnded(uint64_t connection, bool held) {
  ++calls_ended_;
  Peer* peer = Find(connection);
  if (peer == nullptr) return;
  --peer->calls;
  if (held) --peer->held;
  peer->active = now_();
}

Status RpcConnections::Hold(uint64_t connection) {
  Peer* peer = Find(connection);
  if (peer == nullptr) return UnavailableError("the connection is gone");
  const auto holding = static_cast<size_t>(
      std::count_if(peers_.begin() + 1, peers_.end(), [](const Peer& p) { return p.held > 0; }));
  if (peer->held == 0 && holding >= max_held_) {
    return ResourceExhaustedError(std::to_string(holding) +
                                  " connections have calls under way, the limit is " +
                                  std::to_string(max_held_));
  }
  ++peer->held;
  return {};
}

std::optional<ucred> RpcConnections::PeerOf(const std::string& peer) const {
  const Peer* named = Named(peer);
  if (named == nullptr || named->credentials.pid == 0) return std::nullopt;
  return named->credentials;
}

}  // namespace thimble
