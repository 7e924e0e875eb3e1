#include "client/bench_flash.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "storage/base/bytes.h"

namespace thimble {
namespace {

class TemporaryFile {
 public:
  explicit TemporaryFile(uint64_t bytes) {
    const int fd = ::mkstemp(path_.data());
    ::close(fd);
    std::ofstream(path_) << std::string(bytes, 'x');
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  // In the build's directory: /tmp may be RAM, which refuses O_DIRECT and drops nothing.
  std::string path_ = THIMBLE_BINARY_DIR "/thimble-flash-XXXXXX";
};

TEST(MeasureFlash, TriesSeveralWaysAndPutsTheFastestFirst) {
  const TemporaryFile file(5 * kMiB + 123);
  const Result<std::vector<FlashRate>> rates = MeasureFlash(file.path());
  ASSERT_TRUE(rates.ok()) << rates.status().ToString();
  ASSERT_GE(rates->size(), 2U);
  for (size_t i = 0; i < rates->size(); ++i) {
    EXPECT_GT((*rates)[i].bytes_per_second, 1e5) << (*rates)[i].method;
    EXPECT_GE((*rates)[i].rounds, 1U);
    if (i == 0) continue;
    EXPECT_GE((*rates)[i - 1].bytes_per_second, (*rates)[i].bytes_per_second);
  }
}

TEST(MeasureFlash, TriesTheOneWayThatIsNamed) {
  const TemporaryFile file(5 * kMiB + 123);
  const Result<std::vector<FlashRate>> rates = MeasureFlash(file.path(), "through the page cache");
  ASSERT_TRUE(rates.ok()) << rates.status().ToString();
  ASSERT_EQ(rates->size(), 1U);
  EXPECT_EQ(rates->front().method, "through the page cache");
  EXPECT_EQ(MeasureFlash(file.path(), "by pigeon").status().code(), StatusCode::kNotFound);
}

TEST(MeasureFlash, RefusesWhatHasNothingToRead) {
  const TemporaryFile empty(0);
  EXPECT_EQ(MeasureFlash(empty.path()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(MeasureFlash("/no/such/file").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace thimble
