#include "daemon/config_sources.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/options/options_test_util.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {
namespace {

// A configuration file with this text, for the length of a test.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) : path_(directory_.path() + "/thimbled.conf") {
    std::ofstream(path_) << text;
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  TempDir directory_;
  std::string path_;
};

TEST(ConfigSources, ReadsEveryOptionFromTheCommandLine) {
  const Result<Invocation> read = Read({"--model",        "m.gguf",
                                        "--ram-ceiling",  "64M",
                                        "--enforcement",  "process",
                                        "--state-dir",    "/s",
                                        "--listen",       "127.0.0.1:7070",
                                        "--http",         "off",
                                        "--allow-remote", "--reflection",
                                        "--context",      "256",
                                        "--max-active",   "2",
                                        "--max-queue",    "0",
                                        "--granularity",  "head",
                                        "--prompt-chunk", "1",
                                        "--draft-tokens", "3",
                                        "--reader",       "buffered",
                                        "--cache-size",   "2G",
                                        "--kv-type",      "q8_0",
                                        "--log-level",    "debug"});
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  const Config& config = read->config;
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.ram_ceiling_bytes, 64 * kMiB);
  EXPECT_EQ(config.enforcement, Enforcement::kProcess);
  EXPECT_EQ(config.state_dir, "/s");
  EXPECT_EQ(config.listen, "127.0.0.1:7070");
  EXPECT_EQ(config.http, "off");
  EXPECT_TRUE(config.allow_remote);
  EXPECT_TRUE(config.reflection);
  EXPECT_EQ(config.context_tokens, 256);
  EXPECT_EQ(config.max_active, 2);
  EXPECT_EQ(config.max_queue, 0);
  EXPECT_EQ(config.granularity, Granularity::kHead);
  EXPECT_EQ(config.prompt_chunk, 1);
  EXPECT_EQ(config.draft_tokens, 3);
  EXPECT_EQ(config.reader, ReaderBackend::kBufferedPread);
  EXPECT_EQ(config.cache_bytes, 2 * kGiB);
  EXPECT_EQ(config.kv_type, KvType::kQ8_0);
  EXPECT_EQ(config.log_level, LogLevel::kDebug);
}

// Every option through every source: the table alone says how.
TEST(ConfigSources, EveryOptionIsReadFromTheEnvironmentAndTheFile) {
  Config other;
  other.model = "/m";
  other.ram_ceiling_bytes = 24 * kMiB;
  other.enforcement = Enforcement::kNone;
  other.state_dir = "/s";
  other.listen = "[::1]:7070";
  other.http = "off";
  other.allow_remote = true;
  other.reflection = true;
  other.context_tokens = 2;
  other.max_active = 3;
  other.max_queue = 5;
  other.granularity = Granularity::kOp;
  other.prompt_chunk = 7;
  other.draft_tokens = 0;
  other.reader = ReaderBackend::kDirectPread;
  other.cache_bytes = 16 * kMiB;
  other.kv_type = KvType::kQ8_0;
  other.log_level = LogLevel::kError;
  for (const OptionSpec& spec : OptionTable()) {
    const std::string value = spec.show(other);
    if (value == spec.show(Config())) continue;  // an option that this test does not know yet
    const std::string variable = VariableName(spec.name) + "=" + value;
    const Result<Invocation> environment = Read({}, {variable.c_str()});
    ASSERT_TRUE(environment.ok()) << environment.status().ToString();
    EXPECT_EQ(spec.show(environment->config), value);
    EXPECT_EQ(SourceOf(*environment, spec.name), VariableName(spec.name));

    const ConfigFile file("# one\n" + spec.name + " = " + value + "\n");
    const Result<Invocation> from_file = Read({}, {}, file.path());
    ASSERT_TRUE(from_file.ok()) << from_file.status().ToString();
    EXPECT_EQ(spec.show(from_file->config), value);
    EXPECT_EQ(SourceOf(*from_file, spec.name), file.path() + ":2");
  }
}

TEST(ConfigSources, TheCommandLineCountsBeforeTheEnvironmentAndThatBeforeTheFile) {
  const ConfigFile file("max-active = 5\nmax-queue = 6\nprompt-chunk = 7\n");
  const Result<Invocation> read =
      Read({"--max-active", "1"}, {"THIMBLE_MAX_ACTIVE=2", "THIMBLE_MAX_QUEUE=3", "PATH=/bin"},
           file.path());
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->config.max_active, 1);
  EXPECT_EQ(SourceOf(*read, "max-active"), "command line");
  EXPECT_EQ(read->config.max_queue, 3);
  EXPECT_EQ(SourceOf(*read, "max-queue"), "THIMBLE_MAX_QUEUE");
  EXPECT_EQ(read->config.prompt_chunk, 7);
  EXPECT_EQ(SourceOf(*read, "prompt-chunk"), file.path() + ":3");
  EXPECT_EQ(SourceOf(*read, "listen"), "default");
  EXPECT_EQ(read->config_file, file.path());
}

TEST(ConfigSources, AnErrorNamesTheOptionTheValueAndTheRange) {
  const std::vector<std::vector<const char*>> cases = {
      {"--ram-ceiling", "banana", "64M"},
      {"--ram-ceiling", "1K", "1M"},
      {"--enforcement", "please", "cgroup|process|none"},
      {"--context", "0", "from 2 to"},
      {"--context", "1", "from 2 to"},
      {"--context", "12x", "from 2 to"},
      {"--max-active", "-1", "from 1 to 64"},
      {"--max-active", "65", "from 1 to 64"},
      {"--max-queue", "99999999999", "from 0 to"},
      {"--granularity", "tiny", "head|op|auto"},
      {"--prompt-chunk", "1025", "from 0 to 1024"},
      {"--reader", "mmap", "auto|io_uring"},
      {"--cache-size", "1M", "16M"},
      {"--listen", "nonsense", "unix:PATH"},
      {"--listen", "off", "unix:PATH"},
      {"--http", "localhost:1", "off, unix:PATH"},
      {"--state-dir", "", "empty"},
      {"--log-level", "loud", "error|warning"},
  };
  for (const std::vector<const char*>& bad : cases) {
    const Result<Invocation> read = Read({bad[0], bad[1]});
    ASSERT_FALSE(read.ok()) << bad[0] << " " << bad[1];
    EXPECT_EQ(read.status().code(), StatusCode::kInvalidArgument);
    for (const char* part : bad) EXPECT_TRUE(Says(read.status(), part));
  }
}

TEST(ConfigSources, EveryProblemIsToldWithItsSource) {
  const ConfigFile file("max-active = 100\nfrobnicate = 1\nwhat is this\nlisten = here\n");
  const Result<Invocation> read = Read(
      {"--context", "1"}, {"THIMBLE_MAX_QUEUE=many", "THIMBLE_FOO=1", "THIMBLE_"}, file.path());
  ASSERT_FALSE(read.ok());
  for (const std::string& part :
       {file.path() + ":1: max-active = 100: a whole number from 1 to 64",
        file.path() + ":2: frobnicate: there is no such option",
        file.path() + ":3: \"what is this\": expected key = value",
        file.path() + ":4: listen = here: unix:PATH", std::string("THIMBLE_MAX_QUEUE=many: "),
        std::string("THIMBLE_FOO: there is no such option"),
        std::string("THIMBLE_: there is no such option"),
        std::string("--context 1: a whole number")}) {
    EXPECT_TRUE(Says(read.status(), part));
  }
}

TEST(ConfigSources, AMistakeInAWeakerSourceIsNotHiddenByAStrongerOne) {
  const Result<Invocation> read = Read({"--max-active", "1"}, {"THIMBLE_MAX_ACTIVE=none"});
  ASSERT_FALSE(read.ok());
  EXPECT_TRUE(Says(read.status(), "THIMBLE_MAX_ACTIVE=none"));
}

TEST(ConfigSources, UnknownAndRepeatedOptionsAreErrors) {
  const Result<Invocation> unknown = Read({"--frobnicate"});
  ASSERT_FALSE(unknown.ok());
  EXPECT_TRUE(Says(unknown.status(), "--frobnicate"));
  EXPECT_FALSE(Read({"stray"}).ok());
  EXPECT_FALSE(Read({"--max-active"}).ok()) << "without its value";
  EXPECT_FALSE(Read({"--max-active", "2", "--max-active", "3"}).ok());
  EXPECT_FALSE(Read({"--allow-remote", "--allow-remote=no"}).ok());
  EXPECT_FALSE(Read({"--allow-remote", "stray"}).ok());
  EXPECT_FALSE(Read({"--allow-remote=perhaps"}).ok());
}

TEST(ConfigSources, AFlagIsYesByItselfAndCanBeTakenBack) {
  EXPECT_TRUE(Read({"--allow-remote"})->config.allow_remote);
  EXPECT_TRUE(Read({}, {"THIMBLE_ALLOW_REMOTE=on"})->config.allow_remote);
  EXPECT_FALSE(Read({"--allow-remote=no"}, {"THIMBLE_ALLOW_REMOTE=yes"})->config.allow_remote);
}

TEST(ConfigSources, TheClientsVariableIsLeftToTheClient) {
  EXPECT_TRUE(Read({}, {"THIMBLE_CONNECT=unix:/s", "THIMBLED=x"}).ok());
}

TEST(ConfigSources, AFileThatIsNamedMustBeThereAndTheDefaultNeedNot) {
  EXPECT_TRUE(Read({}, {}, "/nowhere/thimbled.conf").ok());
  const Result<Invocation> option = Read({"--config", "/nowhere/thimbled.conf"});
  ASSERT_FALSE(option.ok());
  EXPECT_TRUE(Says(option.status(), "/nowhere/thimbled.conf"));
  const Result<Invocation> variable = Read({}, {"THIMBLE_CONFIG=/nowhere/thimbled.conf"});
  ASSERT_FALSE(variable.ok());
  EXPECT_TRUE(Says(variable.status(), "/nowhere/thimbled.conf"));
  const Result<Invocation> directory = Read({}, {}, "/");
  ASSERT_FALSE(directory.ok());
  EXPECT_TRUE(Says(directory.status(), "Is a directory"));
}

TEST(ConfigSources, TheFileIsChosenByTheCommandLineThenTheEnvironment) {
  const ConfigFile one("max-active = 1\n");
  const ConfigFile two("max-active = 2\n");
  const std::string variable = "THIMBLE_CONFIG=" + two.path();
  EXPECT_EQ(Read({}, {variable.c_str()}, one.path())->config.max_active, 2);
  EXPECT_EQ(Read({"--config", one.path().c_str()}, {variable.c_str()})->config.max_active, 1);
}

TEST(ConfigSources, OtherMachinesAreLetInOnlyWithTheFlag) {
  for (const char* option : {"--listen", "--http"}) {
    for (const char* address : {"0.0.0.0:7070", "192.168.0.1:7070", "[::]:7070"}) {
      const Result<Invocation> refused = Read({option, address});
      ASSERT_FALSE(refused.ok()) << option << " " << address;
      for (const char* part : {option, address, "--allow-remote", "command line"}) {
        EXPECT_TRUE(Says(refused.status(), part));
      }
      EXPECT_TRUE(Read({option, address, "--allow-remote"}).ok());
    }
    EXPECT_TRUE(Read({option, "127.1.2.3:7070"}).ok()) << "the loopback network";
  }
}

TEST(ConfigSources, HelpListsEveryOptionWithItsDefaultAndVariable) {
  const Result<Invocation> help = Read({"--help"});
  ASSERT_TRUE(help.ok());
  for (const OptionSpec& spec : OptionTable()) {
    for (const std::string& part :
         {"--" + spec.name, "default: " + spec.fallback, "[" + VariableName(spec.name) + "]"}) {
      EXPECT_NE(help->print.find(part), std::string::npos) << part;
    }
  }
  const Result<Invocation> version = Read({"--version"});
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->print, "thimbled " THIMBLE_VERSION "\n");
}

}  // namespace
}  // namespace thimble
