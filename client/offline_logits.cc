// `thimble logits`: the logits after each of some tokens, without a daemon: what engines are
// compared with. The tokens are run as a prompt, chunk by chunk, through the same plan and runner
// as the daemon's; row i of the file is float32 [vocab_size], little-endian, the logits after token
// i.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "client/common.h"
#include "client/offline.h"
#include "daemon/run/session.h"

namespace thimble {
namespace {

// Writes the tiles of a row where they belong in the file.
class FileSink final : public LogitsSink {
 public:
  FileSink(int fd, std::string path, uint32_t vocab_size)
      : fd_(fd), path_(std::move(path)), vocab_size_(vocab_size) {}
  ~FileSink() override { ::close(fd_); }
  FileSink(const FileSink&) = delete;
  FileSink& operator=(const FileSink&) = delete;

  void set_first_row(uint64_t row) { first_row_ = row; }

  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override {
    const uint64_t offset =
        ((first_row_ + row) * uint64_t{vocab_size_} + first_token) * sizeof(float);
    const std::span<const std::byte> bytes = std::as_bytes(logits);
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, "write " + path_);
      done += static_cast<size_t>(n);
    }
    return {};
  }

 private:
  const int fd_;
  const std::string path_;
  const uint32_t vocab_size_;
  uint64_t first_row_ = 0;
};

Status Run(const LogitsCommand& command) {
  THIMBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ParseTokenIds(command.tokens));
  THIMBLE_ASSIGN_OR_RETURN(auto scratch, ScratchCache::Make());
  THIMBLE_ASSIGN_OR_RETURN(auto file, OpenFile(command.model));
  SessionOptions options;
  THIMBLE_ASSIGN_OR_RETURN(options.plan,
                           OfflinePlanOptions(command.ram_ceiling, command.granularity,
                                              command.prompt_chunk, command.prompt_chunk));
  THIMBLE_ASSIGN_OR_RETURN(Session session,
                           Session::Open(std::move(file), scratch->env(), options));
  const int fd = ::open(command.out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoError(errno, "create " + command.out);
  FileSink sink(fd, command.out, session.model->vocab_size);
  THIMBLE_ASSIGN_OR_RETURN(KvSequence sequence,
                           session.kv->OpenSequence(tokens, static_cast<uint32_t>(tokens.size())));
  for (size_t done = 0; done < tokens.size();) {
    const size_t n = std::min<size_t>(session.plan->max_rows, tokens.size() - done);
    sink.set_first_row(done);
    const PassItem item = {&sequence, std::span(tokens).subspan(done, n), static_cast<uint32_t>(n),
                           &sink};
    THIMBLE_RETURN_IF_ERROR(session.runner->Begin({&item, 1}));
    for (bool complete = false; !complete;) {
      THIMBLE_ASSIGN_OR_RETURN(complete, session.runner->Step());
    }
    done += n;
  }
  return session.kv->CloseSequence(sequence);
}

}  // namespace

int RunLogitsCommand(const LogitsCommand& command) {
  const Status status = Run(command);
  if (status.ok()) return kExitOk;
  PrintError(status, /*json=*/false);
  return kExitFailed;
}

}  // namespace thimble
