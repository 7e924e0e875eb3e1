#include "daemon/config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "tests/options/options_test_util.h"

namespace thimble {
namespace {

TEST(Config, EveryOptionReadsWhatItShows) {
  for (const OptionSpec& spec : OptionTable()) {
    const std::string shown = spec.show(Config());
    Config typed;
    // What is zero or empty stands for words, and is not typed.
    if (shown == spec.fallback) {
      EXPECT_TRUE(spec.parse(shown, typed).ok()) << spec.name << " " << shown;
    }
    EXPECT_EQ(spec.show(typed), shown) << spec.name;
  }
}

TEST(Config, NamesHelpAndDefaultsAreThereAndUnique) {
  std::set<std::string> names;
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    EXPECT_EQ(spec.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"),
              std::string::npos)
        << spec.name;
    EXPECT_FALSE(spec.help.empty()) << spec.name;
    EXPECT_FALSE(spec.fallback.empty()) << spec.name;
  }
}

TEST(Config, DefaultsAreThoseThatAreDocumented) {
  const Config config;
  EXPECT_EQ(config.ram_ceiling_bytes, 0);
  EXPECT_EQ(config.enforcement, Enforcement::kCgroup);
  EXPECT_EQ(config.listen, "unix:/run/thimble/thimble.sock");
  EXPECT_EQ(config.http, "127.0.0.1:9464");
  EXPECT_FALSE(config.allow_remote);
  EXPECT_EQ(config.max_active, 4);
  EXPECT_EQ(config.max_queue, 64);
  EXPECT_EQ(config.granularity, Granularity::kAuto);
  EXPECT_EQ(config.reader, ReaderBackend::kAuto);
}

TEST(Config, TheReadmeListsEveryOption) {
  std::ifstream file(THIMBLE_SOURCE_DIR "/README.md");
  const std::string readme(std::istreambuf_iterator<char>(file), {});
  for (const OptionSpec& spec : OptionTable()) {
    EXPECT_NE(readme.find("| `--" + spec.name), std::string::npos) << spec.name;
  }
}

TEST(Config, SizesAreShownInTheLargestUnitThatFits) {
  for (const auto& [typed, shown] :
       {std::pair("64M", "64M"), std::pair("65536K", "64M"), std::pair("1073741824", "1G"),
        std::pair("1048577", "1048577"), std::pair("0", "0")}) {
    const Result<Invocation> read = Read({"--ram-ceiling", typed});
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    for (const OptionSpec& spec : OptionTable()) {
      if (spec.name != "ram-ceiling") continue;
      EXPECT_EQ(spec.show(read->config), shown);
    }
  }
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

TEST(Config, TheContextIsTheModelsOwnUnlessLessIsAskedFor) {
  Config config;
  EXPECT_EQ(*ContextTokens(config, 512), 512);
  EXPECT_EQ(*ContextTokens(config, 100'000), kDefaultContextTokens);
  config.context_tokens = 4096;
  EXPECT_EQ(*ContextTokens(config, 100'000), 4096);
  const Result<uint32_t> more = ContextTokens(config, 4095);
  ASSERT_FALSE(more.ok());
  EXPECT_TRUE(Says(more.status(), "--context 4096"));
  EXPECT_TRUE(Says(more.status(), "4095"));
}

}  // namespace
}  // namespace thimble
