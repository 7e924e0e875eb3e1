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
  const Result<SpeedProbe> probe = ProbeSpeed(**file, GetParam(), **model);
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
}

INSTANTIATE_TEST_SUITE_P(Readers, SpeedProbeTest,
                         testing::Values(ReaderBackend::kAuto, ReaderBackend::kIoUring,
                                         ReaderBackend::kDirectPread,
                                         ReaderBackend::kBufferedPread));

}  // namespace
}  // namespace thimble
