#include "daemon/run/speed_probe.h"

#include <gtest/gtest.h>

#include "daemon/model/model.h"

namespace thimble {
namespace {

const char* const kModel = THIMBLE_SOURCE_DIR "/daemon/model/builtin/thimble-stories-q8_0.gguf";

class SpeedProbeTest : public testing::TestWithParam<ReaderBackend> {};

TEST_P(SpeedProbeTest, MeasuresFlashAndProcessorOnTheModelItself) {
  auto file = OpenFile(kModel);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  auto model = LoadModel(**file);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const Result<Speeds> probe = ProbeSpeed(**file, GetParam(), **model);
  if (!probe.ok() && GetParam() != ReaderBackend::kAuto) {
    // A kernel or file system may refuse a backend; it must say so.
    EXPECT_NE(probe.status().message(), "");
    return;
  }
  ASSERT_TRUE(probe.ok()) << probe.status().ToString();
  // From the slowest card to memory.
  EXPECT_GT(probe->flash_bytes_per_second, 1e5);
  EXPECT_LT(probe->flash_bytes_per_second, 1e12);
  EXPECT_GT(probe->processor_bytes_per_second, 1e5);
  EXPECT_LT(probe->processor_bytes_per_second, 1e12);
  EXPECT_GT(probe->processor_row_bytes_per_second, 1e5);
  EXPECT_LT(probe->processor_row_bytes_per_second, 1e12);
  // A weight that is decoded once for all rows costs each of them less; others may have the
  // processor for any of these 10 ms.
  bool less = false;
  for (int attempt = 0; attempt < 20 && !less; ++attempt) {
    const Result<Speeds> again = ProbeSpeed(**file, GetParam(), **model);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    less = again->processor_row_bytes_per_second > again->processor_bytes_per_second;
  }
  EXPECT_TRUE(less);
}

INSTANTIATE_TEST_SUITE_P(Readers, SpeedProbeTest,
                         testing::Values(ReaderBackend::kAuto, ReaderBackend::kIoUring,
                                         ReaderBackend::kDirectPread,
                                         ReaderBackend::kBufferedPread));

}  // namespace
}  // namespace thimble
