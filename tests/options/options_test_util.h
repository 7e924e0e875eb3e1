// For the tests of options: reading them as main does, from sources that the test gives.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "daemon/config_sources.h"

namespace thimble {

// /dev/null in place of the machine's own configuration file.
inline Result<Invocation> Read(std::vector<const char*> arguments,
                               std::vector<const char*> environment = {},
                               const std::string& file = "/dev/null") {
  arguments.insert(arguments.begin(), "thimbled");
  environment.push_back(nullptr);
  return ReadOptions(static_cast<int>(arguments.size()), arguments.data(), environment.data(),
                     file);
}

// Where the value of an option came from.
inline std::string SourceOf(const Invocation& invocation, const std::string& name) {
  for (size_t i = 0; i < OptionTable().size(); ++i) {
    if (OptionTable()[i].name == name) return invocation.sources[i];
  }
  return "no such option";
}

inline ::testing::AssertionResult Says(const Status& status, const std::string& part) {
  if (status.message().find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << part << " in: " << status.message();
}

}  // namespace thimble
