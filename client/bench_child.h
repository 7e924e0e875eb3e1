// A child process of `thimble bench`: in its control groups and on its processor before its first
// page, its output in a file, killed when its object goes, when the parent dies, and on Ctrl-C.
// Called by: bench*.cc. Memory: some strings.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "storage/base/status.h"

namespace thimble {

struct ChildOptions {
  std::vector<std::string> arguments;    // the program first, looked for on the PATH
  std::vector<std::string> procs_files;  // of the control groups to enter, as BenchGroup has them
  int cpu = -1;                          // the one processor it may run on; -1: any
  std::string output;                    // a file for standard output and standard error
};

class Child {
 public:
  // NOT_FOUND and the like where it could not be started: the group refused it, no such program.
  static Result<std::unique_ptr<Child>> Start(const ChildOptions& options);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  // False once it has ended; then its status has been collected.
  bool Running();
  // Waits for its end, and kills it when the time is over (DEADLINE_EXCEEDED). An error too where
  // it ended by a signal or with another exit status than 0, with the last lines of its output.
  Status Finish(std::chrono::seconds limit);
  // Asks with SIGTERM first.
  Status Stop(std::chrono::seconds limit);
  [[nodiscard]] std::string Output() const;

 private:
  Child(pid_t pid, ChildOptions options) : pid_(pid), options_(std::move(options)) {}
  const pid_t pid_;
  const ChildOptions options_;
  bool ended_ = false;
  int status_ = 0;  // as waitpid(2) has it
};

// From here on SIGINT and SIGTERM kill the running child and set Interrupted(), so that everything
// unwinds and control groups are removed.
void HandleInterrupts();
bool Interrupted();

}  // namespace thimble
