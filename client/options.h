// The command line: which commands there are and what their options are called, once.
// Called by: main. Memory: CLI11's tree, some hundred KiB.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "client/commands.h"

namespace thimble {

// What a command line says.
struct CommandLine {
  std::string connect;
  GenerateCommand generate;
  ChatCommand chat;
  TopCommand top;
  StatusCommand status;
  PlanCommand plan;
  TokenizeCommand tokenize;
  HealthCommand health;
  VersionCommand version;
  LogitsCommand logits;
  BenchCommand bench;
  FlashCommand flash;
};

// Adds every option and command to `app`; parsing fills in `line`, which must outlive it.
void AddOptions(CLI::App& app, CommandLine& line);

// A command whose help ends with an example and the exit statuses.
CLI::App& AddCommand(CLI::App& app, const char* name, const char* what, const char* example);
void AddBench(CLI::App& app, BenchCommand& c);
void AddFlash(CLI::App& app, FlashCommand& c);

}  // namespace thimble
