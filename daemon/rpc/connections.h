// The gRPC server's connections: accepted here and handed to gRPC, so that their number is bounded.
// gRPC itself accepts without bound, and a connection costs it 17 KiB of heap and the kernel 8 KiB
// whatever its resource quota says: 200 clients at once took 5 MiB.
//
//   accepted -> idle <-> has calls -> held (a call that may last) -> closed
//
// At most max_held connections have calls that may last (a generation, a watch). kVisitors more are
// accepted, for questions that are answered at once (status, health): what would last is refused
// there with the number (Hold), so that a crowd hears no instead of nothing. A newcomer that finds
// all places taken gets that of the connection that has been idle longest: who only connects holds
// up nobody. Callers tell of calls by CallBegan and CallEnded.
//
// Called by: RpcServer, its calls. Memory: 64 bytes a connection; gRPC's share is what the bound
// bounds.
#pragma once

#include <grpcpp/server.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

class RpcConnections {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kVisitors = 8;
  // Before it may lose its place to another: time for the first call to come, or the next one.
  static constexpr std::chrono::milliseconds kIdleGrace{250};
  // The same for one with a call that gets no further: its message does not come, or its answer is
  // not taken.
  static constexpr std::chrono::seconds kCallGrace{5};

  // `listener`: a listening, non-blocking socket, owned from now on. `now`: for tests.
  RpcConnections(int listener, size_t max_held,
                 std::function<Clock::time_point()> now = Clock::now);
  ~RpcConnections();
  RpcConnections(const RpcConnections&) = delete;
  RpcConnections& operator=(const RpcConnections&) = delete;

  // Lets go of connections that are over and hands waiting ones to `server`. Never blocks.
  void Update(grpc::Server& server);
  // The listening socket while nothing can come but a first connection; -1 where there are
  // connections, which gRPC alone can wait for, nobody is accepted any more, or accepting failed
  // the last time: who waits for the socket then would be told at once, again and again.
  [[nodiscard]] int AwaitsFirst() const {
    return size() == 0 && !accept_fails_ ? watched_[0].fd : -1;
  }
  // Accepts nothing more; open connections stay gRPC's.
  void StopListening();

  // A call has come over the connection that its ServerContext::peer() names; the answer names the
  // connection to the rest of these, and is 0 where it is gone already.
  uint64_t CallBegan(const std::string& peer);
  void CallEnded(uint64_t connection, bool held);
  // The call will last: CallEnded with `held`. RESOURCE_EXHAUSTED where max_held connections have
  // such calls and this one has none.
  Status Hold(uint64_t connection);

  // The process, user and group of the client behind `peer`, a call's ServerContext::peer(): what
  // the kernel says of a Unix socket's other end (SO_PEERCRED); nothing of a port's.
  [[nodiscard]] std::optional<ucred> PeerOf(const std::string& peer) const;

  [[nodiscard]] size_t size() const { return watched_.size() - 1; }

 private:
  struct Peer {
    uint64_t serial = 0;
    int connection = -1;  // gRPC's descriptor
    uint32_t calls = 0;
    uint32_t held = 0;         // of these, those that last
    Clock::time_point active;  // accepted, or a call began or ended
    ucred credentials{};       // pid 0: not a Unix socket
  };
  [[nodiscard]] const Peer* Named(const std::string& peer) const;
  [[nodiscard]] Peer* Find(uint64_t connection);
  bool Accept(grpc::Server& server);
  void Remove(size_t index);
  void Release();
  bool CloseIdlest();
  void TrimHeap();

  void TellAcceptFails(const char* what);

  const size_t max_held_;
  const std::function<Clock::time_point()> now_;
  uint64_t last_serial_ = 0;
  bool accept_fails_ = false;  // told of once, until one is accepted again
  // Connections and calls that are over since the heap was asked to give its free pages back.
  size_t released_ = 0;
  size_t calls_ended_ = 0;
  // [0]: the listener. Then a duplicate of every connection's descriptor: gRPC owns the original
  // and tells nobody when it closes it, but it shuts the socket down, which the duplicate sees.
  std::vector<pollfd> watched_;
  std::vector<Peer> peers_;  // by the index in watched_
};

}  // namespace thimble
