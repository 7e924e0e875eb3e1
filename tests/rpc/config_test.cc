#include "daemon/config.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/rpc/fakes.h"

namespace thimble {
namespace {

Result<Invocation> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "thimbled");
  return ParseArguments(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Config, DefaultsAreThoseOfTheTable) {
  const Result<Invocation> parsed = Parse({});
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const Config& config = parsed->config;
  EXPECT_EQ(config.ram_ceiling_bytes, 0);
  EXPECT_EQ(config.enforcement, Enforcement::kCgroup);
  EXPECT_EQ(config.max_active, 4);
  EXPECT_EQ(config.max_queue, 64);
  EXPECT_EQ(config.granularity, Granularity::kAuto);
  EXPECT_EQ(config.reader, ReaderBackend::kAuto);
  // The default that --help shows, typed in, gives the default.
  for (const OptionSpec& spec : OptionTable()) {
    if (spec.name == "--model" || spec.name == "--context") continue;  // described in words
    Config typed;
    EXPECT_TRUE(spec.parse(spec.fallback, typed).ok()) << spec.name;
    EXPECT_EQ(typed.max_active, config.max_active);
    EXPECT_EQ(typed.max_queue, config.max_queue);
    EXPECT_EQ(typed.prompt_chunk, config.prompt_chunk);
    EXPECT_EQ(typed.cache_bytes, config.cache_bytes);
    EXPECT_EQ(typed.listen, config.listen);
    EXPECT_EQ(typed.http, config.http);
    EXPECT_EQ(typed.state_dir, config.state_dir);
  }
}

TEST(Config, ReadsEveryOption) {
  const Result<Invocation> parsed = Parse({"--model",        "m.gguf",
                                           "--ram-ceiling",  "64M",
                                           "--enforcement",  "process",
                                           "--state-dir",    "/s",
                                           "--listen",       "127.0.0.1:7070",
                                           "--http",         "off",
                                           "--context",      "256",
                                           "--max-active",   "2",
                                           "--max-queue",    "0",
                                           "--granularity",  "head",
                                           "--prompt-chunk", "1",
                                           "--reader",       "buffered",
                                           "--cache-size",   "2G"});
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const Config& config = parsed->config;
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.ram_ceiling_bytes, 64 * kMiB);
  EXPECT_EQ(config.enforcement, Enforcement::kProcess);
  EXPECT_EQ(config.state_dir, "/s");
  EXPECT_EQ(config.listen, "127.0.0.1:7070");
  EXPECT_EQ(config.http, "off");
  EXPECT_EQ(config.context_tokens, 256);
  EXPECT_EQ(config.max_active, 2);
  EXPECT_EQ(config.max_queue, 0);
  EXPECT_EQ(config.granularity, Granularity::kHead);
  EXPECT_EQ(config.prompt_chunk, 1);
  EXPECT_EQ(config.reader, ReaderBackend::kBufferedPread);
  EXPECT_EQ(config.cache_bytes, 2 * kGiB);
}

TEST(Config, AnErrorNamesTheOptionTheValueAndTheRange) {
  const std::vector<std::vector<const char*>> cases = {
      {"--ram-ceiling", "banana", "64M"},
      {"--ram-ceiling", "1K", "1.0 MiB"},
      {"--enforcement", "please", "cgroup|process|none"},
      {"--context", "0", "from 1 to"},
      {"--context", "12x", "from 1 to"},
      {"--max-active", "-1", "from 1 to 64"},
      {"--max-active", "65", "from 1 to 64"},
      {"--max-queue", "99999999999", "from 0 to"},
      {"--granularity", "tiny", "head|op|auto"},
      {"--prompt-chunk", "0", "from 1 to 1024"},
      {"--reader", "mmap", "auto|io_uring"},
      {"--cache-size", "1M", "16.0 MiB"},
      {"--listen", "nonsense", "unix:PATH"},
      {"--http", "0.0.0.0:9464", "only this machine"},
      {"--state-dir", "", "empty"},
  };
  for (const std::vector<const char*>& bad : cases) {
    const Result<Invocation> parsed = Parse({bad[0], bad[1]});
    ASSERT_FALSE(parsed.ok()) << bad[0] << " " << bad[1];
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
    for (const char* part : bad) {
      EXPECT_NE(parsed.status().message().find(part), std::string::npos)
          << part << " in: " << parsed.status().message();
    }
  }
}

TEST(Config, UnknownAndRepeatedOptionsAreErrors) {
  const Result<Invocation> unknown = Parse({"--frobnicate"});
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("--frobnicate"), std::string::npos);
  EXPECT_FALSE(Parse({"stray"}).ok());
  EXPECT_FALSE(Parse({"--max-active"}).ok()) << "without its value";
  EXPECT_FALSE(Parse({"--max-active", "2", "--max-active", "3"}).ok());
}

TEST(Config, HelpListsEveryOptionWithItsDefault) {
  const Result<Invocation> help = Parse({"--help"});
  ASSERT_TRUE(help.ok());
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_NE(help->print.find(spec.name), std::string::npos) << spec.name;
    EXPECT_NE(help->print.find("default: "), std::string::npos);
  }
  const Result<Invocation> version = Parse({"--version"});
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->print, "thimbled " THIMBLE_VERSION "\n");
}

TEST(Config, AModelThatIsNamedIsTakenAsItIs) {
  Config config;
  config.model = "/nowhere.gguf";
  const Result<std::string> file = FindModelFile(config);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*file, "/nowhere.gguf");
}

TEST(Config, TheBuiltInModelIsFoundInTheSourceTree) {
  const Result<std::string> file = FindModelFile(Config());
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_TRUE(std::filesystem::is_regular_file(*file)) << *file;
}

}  // namespace
}  // namespace thimble
