// The gRPC server's connections: accepted here and handed to gRPC, so that their number is bounded.
// gRPC itself accepts without bound, and a connection costs it about 35 KiB whatever its resource
// quota says: 200 clients at once took 7 MiB, and the daemon over its ceiling. Past the bound
// clients wait in the socket's backlog until a place is free.
//
// Called by: RpcServer. Memory: 28 bytes a connection; gRPC's share is what the bound bounds.
#pragma once

#include <grpcpp/server.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace thimble {

class RpcConnections {
 public:
  // `listener`: a listening, non-blocking socket, owned from now on.
  RpcConnections(int listener, size_t max_connections);
  ~RpcConnections();
  RpcConnections(const RpcConnections&) = delete;
  RpcConnections& operator=(const RpcConnections&) = delete;

  // Lets go of connections that are over and hands waiting ones to `server`. Never blocks.
  void Update(grpc::Server& server);
  // Sleeps, at most `wait`, until there is someone to accept. False, at once, where that would not
  // do: there are connections, which gRPC alone can wait for, or nobody is accepted any more.
  bool AwaitFirst(std::chrono::milliseconds wait);
  // Accepts nothing more; open connections stay gRPC's.
  void StopListening();

  // The process, user and group of the client behind `peer`, a call's ServerContext::peer(): what
  // the kernel says of a Unix socket's other end (SO_PEERCRED); nothing of a port's.
  [[nodiscard]] std::optional<ucred> PeerOf(const std::string& peer) const;

  [[nodiscard]] size_t size() const { return watched_.size() - 1; }

 private:
  void Release();
  const size_t max_connections_;
  // [0]: the listener. Then a duplicate of every connection's descriptor: gRPC owns the original
  // and tells nobody when it closes it, but it shuts the socket down, which the duplicate sees.
  std::vector<pollfd> watched_;
  struct Peer {
    int connection = -1;  // gRPC's descriptor
    ucred credentials{};  // pid 0: not a Unix socket
  };
  std::vector<Peer> peers_;  // by the index in watched_
};

}  // namespace thimble
