#include "daemon/listener.h"

#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/log.h"

namespace thimble {
namespace {

// The members of which may use a Unix socket.
constexpr const char* kGroup = "thimble";

// From the file: asking the name services would load their libraries for good, for one number.
std::optional<gid_t> GroupId(const char* name) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/etc/group", "re"), &std::fclose);
  if (file == nullptr) return std::nullopt;
  while (const group* entry = ::fgetgrent(file.get())) {
    if (std::strcmp(entry->gr_name, name) == 0) return entry->gr_gid;
  }
  return std::nullopt;
}

// A daemon that is not a member of the group, a user's own, keeps its socket to itself.
void GiveToGroup(const std::string& path) {
  const std::optional<gid_t> id = GroupId(kGroup);
  struct stat info {};
  if (!id || ::stat(path.c_str(), &info) != 0 || info.st_gid == *id) return;
  if (::chown(path.c_str(), static_cast<uid_t>(-1), *id) != 0) {
    LogLine(LogLevel::kNotice, "socket")
        .Add("path", path)
        .Add("note", ErrnoError(errno, "give it to the group thimble").message());
  }
}

// 0 or errno.
int BindAndListen(int fd, const SocketAddress& address, int backlog) {
  // Ports in TIME_WAIT alone: one that another program listens on is still refused.
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const mode_t mask = ::umask(0117);  // a Unix socket is for its owner and its group
  const int bound = ::bind(fd, &address.any, address.size);
  const int bind_error = errno;
  ::umask(mask);
  if (bound != 0) return bind_error;
  if (address.any.sa_family == AF_UNIX) {
    GiveToGroup(static_cast<const char*>(address.unix_path.sun_path));
  }
  return ::listen(fd, backlog) == 0 ? 0 : errno;
}

}  // namespace

Result<int> Listen(const ListenAddress& address, int backlog, std::string_view purpose,
                   std::string_view advice) {
  const std::string what = "listen on " + address.grpc + " for " + std::string(purpose);
  THIMBLE_RETURN_IF_ERROR(PrepareSocket(address));
  const SocketAddress where = ToSocketAddress(address);
  const int fd = ::socket(where.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return ErrnoError(errno, what);
  if (const int error = BindAndListen(fd, where, backlog); error != 0) {
    ::close(fd);
    const Status status = ErrnoError(error, what);
    if (error != EADDRINUSE) return status;
    return Status(status.code(), status.message() + "; " + std::string(advice));
  }
  return fd;
}

}  // namespace thimble
