#include "storage/base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace thimble {
namespace {

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text = (std::filesystem::temp_directory_path() / "thimble-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(text.data()), nullptr);
    dir_ = text;
    path_ = dir_ + "/file";
    std::ofstream(path_) << "0123456789";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  static std::string Read(RandomAccessFile& file, uint64_t offset, size_t n) {
    std::string out(n, '?');
    const Status status = file.ReadAt(offset, std::as_writable_bytes(std::span(out)));
    return status.ok() ? out : std::string(StatusCodeName(status.code()));
  }

  std::string dir_;
  std::string path_;
};

TEST_F(FileTest, ReadsExactlyWhatIsAskedForOrSaysWhereTheFileEnds) {
  const auto file = OpenFile(path_);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(Read(**file, 0, 10), "0123456789");
  EXPECT_EQ(Read(**file, 7, 3), "789");
  EXPECT_EQ(Read(**file, 10, 0), "");
  EXPECT_EQ(Read(**file, 7, 4), "OUT_OF_RANGE");
  EXPECT_EQ(Read(**file, 11, 1), "OUT_OF_RANGE");
  std::array<std::byte, 4> out{};
  const Status status = (*file)->ReadAt(7, out);
  EXPECT_NE(status.message().find(path_ + " at offset 0xa"), std::string::npos) << status.message();
  EXPECT_GE((*file)->descriptor(), 0);
}

TEST_F(FileTest, IdentityChangesWhenTheFileDoes) {
  const auto file = OpenFile(path_);
  ASSERT_TRUE(file.ok());
  const FileIdentity before = (*file)->Identity().value();
  EXPECT_EQ(before.size_bytes, 10U);
  EXPECT_EQ((*file)->Identity().value(), before);
  ASSERT_EQ(::truncate(path_.c_str(), 5), 0);
  EXPECT_NE((*file)->Identity().value(), before);
  EXPECT_EQ(Read(**file, 0, 10), "OUT_OF_RANGE");
}

TEST_F(FileTest, MissingFilesAndDirectoriesAreRefused) {
  EXPECT_EQ(OpenFile(dir_ + "/none").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(OpenFile(dir_).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenFile("/dev/null").status().code(), StatusCode::kInvalidArgument);
}

TEST_F(FileTest, MemoryFilesReadLikeFiles) {
  const std::string text = "abcdef";
  const auto file = MemoryFile(std::as_bytes(std::span(text)), "name");
  EXPECT_EQ(Read(*file, 2, 4), "cdef");
  EXPECT_EQ(Read(*file, 6, 0), "");
  EXPECT_EQ(Read(*file, 3, 4), "OUT_OF_RANGE");
  EXPECT_EQ(Read(*file, UINT64_MAX, 2), "OUT_OF_RANGE");
  EXPECT_EQ(file->Identity().value().size_bytes, 6U);
  EXPECT_EQ(file->descriptor(), -1);
  EXPECT_EQ(file->path(), "name");
}

}  // namespace
}  // namespace thimble
