// For the storage tests: a temporary directory, a status matcher, a KV cache with rows that say
// where they belong.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "storage/kv_cache.h"
#include "storage/lmdb.h"

namespace thimble {

// An AssertionResult, so that "ASSERT_OK(...) << more" works.
inline ::testing::AssertionResult IsOk(const Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status.ToString();
}
#define ASSERT_OK(expression) ASSERT_TRUE(::thimble::IsOk(expression))
#define EXPECT_OK(expression) EXPECT_TRUE(::thimble::IsOk(expression))

class TempDir {
 public:
  TempDir() {
    std::string text = (std::filesystem::temp_directory_path() / "thimble-test-XXXXXX").string();
    if (::mkdtemp(text.data()) == nullptr) std::abort();
    path_ = text;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::unique_ptr<LmdbEnv> MustOpen(const std::string& path, uint64_t map_bytes,
                                         bool sync = false) {
  auto env = LmdbEnv::Open(path, {.map_bytes = map_bytes, .sync_commits = sync});
  if (!env.ok()) {
    ADD_FAILURE() << env.status().ToString();
    std::abort();
  }
  return std::move(env).value();
}

// `n` bytes that differ from those of another `salt`.
inline std::string Pattern(size_t n, unsigned salt) {
  std::string out(n, '\0');
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<char>(i * 31 + i / 251 + salt * 17);
  return out;
}

}  // namespace thimble
