// Reading of well-formed files, and what must hold however long they are.
#include "daemon/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "tests/model/gguf_builder.h"

namespace thimble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Gguf Parse(const GgufBuilder& builder) {
  auto gguf = ParseGguf(*builder.File());
  EXPECT_TRUE(gguf.ok()) << gguf.status().ToString();
  return gguf.ok() ? std::move(gguf).value() : Gguf{};
}

// Counts what is read, and fails all reads from `failing_offset` on.
class WatchedFile final : public RandomAccessFile {
 public:
  explicit WatchedFile(std::string_view bytes) : inner_(FileOf(bytes)) {}
  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (offset + out.size() > failing_offset) return UnavailableError("Input/output error");
    bytes_read += out.size();
    return inner_->ReadAt(offset, out);
  }
  Result<FileIdentity> Identity() override { return inner_->Identity(); }
  [[nodiscard]] const std::string& path() const override { return inner_->path(); }

  uint64_t bytes_read = 0;
  uint64_t failing_offset = UINT64_MAX;

 private:
  const std::unique_ptr<RandomAccessFile> inner_;
};

TEST(Gguf, EveryScalarTypeKeepsItsValueAndSign) {
  GgufBuilder b;
  b.Set("u8", GgufType::kUint8, Bytes<uint8_t>(200));
  b.Set("i8", GgufType::kInt8, Bytes<int8_t>(-100));
  b.Set("u16", GgufType::kUint16, Bytes<uint16_t>(60000));
  b.Set("i16", GgufType::kInt16, Bytes<int16_t>(-30000));
  b.Set("u32", GgufType::kUint32, Bytes<uint32_t>(4000000000U));
  b.Set("i32", GgufType::kInt32, Bytes<int32_t>(-2000000000));
  b.Set("u64", GgufType::kUint64, Bytes<uint64_t>(UINT64_MAX));
  b.Set("i64", GgufType::kInt64, Bytes<int64_t>(INT64_MIN));
  b.Set("f32", GgufType::kFloat32, Bytes<float>(0.5F));
  b.Set("f64", GgufType::kFloat64, Bytes<double>(1e300));
  b.SetBool("bool", true);
  b.SetString("string", std::string_view("a\0b", 3));
  const Gguf gguf = Parse(b);
  EXPECT_EQ(*gguf.GetUint("u8"), 200U);
  EXPECT_EQ(std::get<int64_t>(gguf.metadata.at("i8")), -100);
  EXPECT_EQ(*gguf.GetUint("u16"), 60000U);
  EXPECT_EQ(std::get<int64_t>(gguf.metadata.at("i16")), -30000);
  EXPECT_EQ(*gguf.GetUint("u32"), 4000000000U);
  EXPECT_EQ(std::get<int64_t>(gguf.metadata.at("i32")), -2000000000);
  EXPECT_EQ(*gguf.GetUint("u64"), UINT64_MAX);
  EXPECT_EQ(std::get<int64_t>(gguf.metadata.at("i64")), INT64_MIN);
  EXPECT_EQ(*gguf.GetFloat("f32"), 0.5);
  EXPECT_EQ(*gguf.GetFloat("f64"), 1e300);
  EXPECT_TRUE(*gguf.GetBoolOr("bool", false));
  EXPECT_EQ(*gguf.GetString("string"), std::string("a\0b", 3));
}

TEST(Gguf, TypedAccessNamesTheKeyThatIsMissingOrOfAnotherType) {
  GgufBuilder b;
  b.SetString("name", "x").SetUint("count", 7).Set("minus", GgufType::kInt32, Bytes<int32_t>(-3));
  b.SetInts("numbers", {1, 2});
  const Gguf gguf = Parse(b);
  EXPECT_EQ(gguf.GetUint("none").status().message(), "key none: missing");
  EXPECT_EQ(gguf.GetUint("name").status().message(), "key name: a string, expected an integer");
  EXPECT_EQ(gguf.GetUint("minus").status().message(), "key minus: -3 is negative");
  EXPECT_EQ(gguf.GetString("count").status().message(),
            "key count: an unsigned integer, expected a string");
  EXPECT_EQ(gguf.GetFloatOr("name", 1).status().message(), "key name: a string, expected a float");
  EXPECT_EQ(gguf.GetBoolOr("count", true).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(gguf.FindArray("numbers", GgufType::kString).status().message(),
            "key numbers: array of value type 5, expected 8");
  EXPECT_EQ(gguf.FindArray("name", GgufType::kString).status().message(),
            "key name: a string, expected an array");
  EXPECT_EQ(*gguf.FindArray("none", GgufType::kString), nullptr);
  EXPECT_EQ(*gguf.GetUintOr("none", 5), 5U);
  EXPECT_EQ(*gguf.GetStringOr("none", "f"), "f");
}

TEST(Gguf, TensorsAreFoundByNameWithTheirPlaceInTheFile) {
  for (const uint32_t version : {2U, 3U}) {
    GgufBuilder b;
    b.version = version;
    b.alignment = 64;
    b.SetUint("general.alignment", 64);
    b.SetTensor("matrix", {3, 5}).SetTensor("vector", {7}).SetTensor("deep", {2, 2, 3, 1});
    const std::string bytes = b.Build();
    const Gguf gguf = Parse(b);
    EXPECT_EQ(gguf.version, version);
    EXPECT_EQ(gguf.file_bytes, bytes.size());
    EXPECT_EQ(gguf.data_offset % 64, 0U);
    const TensorInfo* vector = gguf.FindTensor("vector");
    ASSERT_NE(vector, nullptr);
    EXPECT_EQ(vector->columns, 7U);
    EXPECT_EQ(vector->rows, 1U);
    EXPECT_EQ(vector->depth, 1U);
    EXPECT_EQ(bytes.substr(vector->offset, vector->bytes), b.At("vector").data);
    EXPECT_EQ(gguf.FindTensor("deep")->depth, 3U);
    EXPECT_EQ(gguf.FindTensor("deep")->bytes, 48U);
    EXPECT_EQ(gguf.FindTensor("matri"), nullptr);
  }
}

TEST(Gguf, BlocksOfQuantizedRowsAreCounted) {
  GgufBuilder b;
  b.tensors.push_back({"q",
                       {64, 3},
                       static_cast<uint32_t>(TensorType::kQ8_0),
                       std::string(size_t{3} * 2 * 34, '\1')});
  EXPECT_EQ(Parse(b).FindTensor("q")->bytes, 204U);
}

TEST(Gguf, ArraysStayInTheFileAndAreReadBackAcrossBuffers) {
  std::vector<std::string> texts;
  for (int i = 0; i < 30000; ++i) texts.push_back("token " + std::to_string(i * 31));
  texts.emplace_back(65536, 'x');
  GgufBuilder b;
  b.SetStrings("texts", texts).SetFloats("floats", {1.5F, -2.5F}).SetInts("ints", {-1, 7, 9});
  const auto file = b.File();
  const auto gguf = ParseGguf(*file);
  ASSERT_TRUE(gguf.ok()) << gguf.status().ToString();
  const GgufArray* array = *gguf->FindArray("texts", GgufType::kString);
  std::vector<std::string> read;
  ASSERT_TRUE(ForEachString(*file, *array, [&](uint64_t index, std::string_view text) {
                EXPECT_EQ(index, read.size());
                read.emplace_back(text);
                return true;
              }).ok());
  EXPECT_EQ(read, texts);

  std::vector<float> floats;
  ASSERT_TRUE(ForEachFloat(*file, **gguf->FindArray("floats", GgufType::kFloat32),
                           [&](uint64_t, float value) {
                             floats.push_back(value);
                             return true;
                           })
                  .ok());
  EXPECT_THAT(floats, ElementsAre(1.5F, -2.5F));
  std::vector<int64_t> ints;
  const GgufArray* int_array = *gguf->FindArray("ints", GgufType::kInt32);
  ASSERT_TRUE(ForEachInt(*file, *int_array, [&](uint64_t index, int64_t value) {
                ints.push_back(value);
                return index < 1;
              }).ok());
  EXPECT_THAT(ints, ElementsAre(-1, 7)) << "the visitor has stopped after the second";
  EXPECT_THAT(ForEachString(*file, *int_array, [](auto, auto) { return true; }).message(),
              HasSubstr("array of value type 5, expected strings"));
}

TEST(Gguf, AStringOfAnArrayLongerThan64KiBIsAnError) {
  GgufBuilder b;
  b.SetStrings("texts", {"a", std::string(65537, 'x')});
  const auto file = b.File();
  const auto gguf = ParseGguf(*file);
  ASSERT_TRUE(gguf.ok());
  EXPECT_THAT(ForEachString(*file, **gguf->FindArray("texts", GgufType::kString),
                            [](auto, auto) { return true; })
                  .message(),
              HasSubstr("array element 1: string of 65537 bytes"));
}

TEST(Gguf, AFileWithoutTensorsMayEndUnpadded) {
  GgufBuilder b;
  b.SetString("general.architecture", "llama");
  EXPECT_EQ(Parse(b).data_offset, b.Build().size());
}

TEST(Gguf, NoByteOfTheHeaderIsReadTwiceAndNoneOfTheDataBeyondTheBuffer) {
  GgufBuilder b;
  std::vector<std::string> texts(20000, "some token");
  b.SetStrings("texts", texts).SetInts("ints", std::vector<int32_t>(100000, 1));
  b.SetTensor("t", {1000, 1000});
  WatchedFile file(b.Build());
  ASSERT_TRUE(ParseGguf(file).ok());
  EXPECT_LE(file.bytes_read, b.Header().size() + 65536);
}

TEST(Gguf, AnErrorOfTheFileRisesWithItsCode) {
  GgufBuilder b;
  b.SetStrings("texts", std::vector<std::string>(20000, "some token")).SetUint("last", 1);
  WatchedFile file(b.Build());
  file.failing_offset = 100000;
  const Status status = ParseGguf(file).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("parse dir/memory.gguf: key texts: array element"));
  EXPECT_THAT(status.message(), HasSubstr("Input/output error"));
}

}  // namespace
}  // namespace thimble
