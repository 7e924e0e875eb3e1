// Every way in which a header can lie: refused, by name, without believing it first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/model/gguf.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/heap_watch.h"
#include "tests/model/tiny_models.h"

namespace thimble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kInvalid = StatusCode::kInvalidArgument;
constexpr uint64_t kHuge[] = {uint64_t{1} << 40, uint64_t{1} << 63, UINT64_MAX};

// Parses; expects an error with this text; and that it cost no more than the buffer and what the
// (small) file holds.
void ExpectError(const GgufBuilder& builder, StatusCode code, const std::string& text) {
  const auto file = builder.File();
  const HeapWatch heap;
  const auto gguf = ParseGguf(*file);
  EXPECT_LT(heap.peak_bytes(), 128 * 1024U);
  EXPECT_EQ(gguf.status().code(), code) << gguf.status().ToString();
  EXPECT_THAT(gguf.status().message(),
              AllOf(StartsWith("parse dir/memory.gguf: "), HasSubstr(text)));
}

GgufBuilder Small() {
  GgufBuilder b;
  b.SetString("general.architecture", "llama").SetUint("a.number", 1).SetInts("a.list", {1, 2, 3});
  b.SetTensor("first", {4, 2}).SetTensor("second", {8});
  return b;
}

TEST(GgufMalformed, Magic) {
  GgufBuilder b = Small();
  b.magic = "GGML";
  ExpectError(b, kInvalid, "magic: \"GGML\", expected \"GGUF\"");
  b.magic = std::string("\0\xff\n\x7f", 4);
  ExpectError(b, kInvalid, R"(magic: "\x00\xff\x0a\x7f")");
}

TEST(GgufMalformed, Version) {
  GgufBuilder b = Small();
  b.version = 0;
  ExpectError(b, kInvalid, "version: 0: thimble reads versions 2 and 3");
  b.version = 1;
  ExpectError(b, StatusCode::kUnimplemented, "version: 1: thimble reads versions 2 and 3");
  b.version = 4;
  ExpectError(b, StatusCode::kUnimplemented, "version: 4: thimble reads versions 2 and 3");
  b.version = 0x03000000;
  ExpectError(b, StatusCode::kUnimplemented, "version: a big-endian file of version 3");
}

TEST(GgufMalformed, HugeCounts) {
  for (const uint64_t count : kHuge) {
    GgufBuilder tensors = Small();
    tensors.tensor_count = count;
    ExpectError(tensors, kInvalid,
                "tensor count: " + std::to_string(count) + ", more than the file's");
    GgufBuilder keys = Small();
    keys.key_count = count;
    ExpectError(keys, kInvalid, "key count: " + std::to_string(count) + ", more than the file's");
  }
}

TEST(GgufMalformed, CountsAboveWhatThimbleKeeps) {
  GgufBuilder b = Small();
  b.tensors.back().data.resize(size_t{1} << 20);
  b.tensor_count = 16385;
  ExpectError(b, StatusCode::kResourceExhausted, "tensor count: 16385, more than the 16384");
  b.tensor_count.reset();
  b.key_count = 4097;
  ExpectError(b, StatusCode::kResourceExhausted, "key count: 4097, more than the 4096");
}

TEST(GgufMalformed, CountsOffByOne) {
  GgufBuilder b = Small();
  b.tensor_count = 3;
  EXPECT_FALSE(ParseGguf(*b.File()).ok());
  b.tensor_count = 2;
  b.key_count = 2;
  EXPECT_FALSE(ParseGguf(*b.File()).ok());
  b.key_count = 4;
  EXPECT_FALSE(ParseGguf(*b.File()).ok());
}

TEST(GgufMalformed, HugeStringLengths) {
  for (const uint64_t length : kHuge) {
    GgufBuilder value = Small();
    value.Set("a.text", GgufType::kString, Bytes(length) + "abc");
    ExpectError(value, kInvalid, "key a.text: string length: " + std::to_string(length) + " bytes");
    GgufBuilder element = Small();
    element.Set("a.texts", GgufType::kArray,
                ArrayBytes(GgufType::kString, 2, StringBytes("ok") + Bytes(length)));
    ExpectError(element, kInvalid, "key a.texts: array element 1: string length: ");
  }
  GgufBuilder name = Small();
  name.tensors.clear();
  name.keys = {{"", 0, ""}};
  std::string bytes = name.Build();
  bytes.replace(24, 8, Bytes(UINT64_MAX));
  bytes += std::string(64, 'x');
  EXPECT_THAT(ParseGguf(*FileOf(bytes)).status().message(),
              HasSubstr("name of key 0: string length"));
}

TEST(GgufMalformed, StringsLongerThanThimbleKeeps) {
  GgufBuilder b = Small();
  b.SetString("a.text", std::string((size_t{1} << 20) + 1, 'x'));
  ExpectError(b, kInvalid, "key a.text: string of 1048577 bytes");
  GgufBuilder name = Small();
  name.SetTensor(std::string(256, 't'), {1});
  ExpectError(name, kInvalid, "name of tensor 2: string of 256 bytes");
}

TEST(GgufMalformed, StringsThatAreTooManyTogether) {
  GgufBuilder b;
  for (int i = 0; i < 5; ++i) b.SetString("text" + std::to_string(i), std::string(1000000, 'x'));
  const auto status = ParseGguf(*b.File()).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(),
              HasSubstr("key text4: names and strings of more than 4194304 bytes"));
}

TEST(GgufMalformed, HugeArrayLengths) {
  for (const uint64_t count : kHuge) {
    for (const GgufType type :
         {GgufType::kUint8, GgufType::kInt32, GgufType::kFloat64, GgufType::kString}) {
      GgufBuilder b = Small();
      b.Set("a.array", GgufType::kArray, ArrayBytes(type, count, "abcdefgh"));
      ExpectError(b, kInvalid, "key a.array: array of " + std::to_string(count) + " elements");
    }
  }
}

TEST(GgufMalformed, NestedArrays) {
  GgufBuilder b = Small();
  b.Set("a.nested", GgufType::kArray,
        ArrayBytes(GgufType::kArray, 1, ArrayBytes(GgufType::kUint8, 1, "x")));
  ExpectError(b, StatusCode::kUnimplemented, "key a.nested: an array of arrays");
}

TEST(GgufMalformed, UnknownValueTypes) {
  for (const uint32_t type : {13U, 255U, UINT32_MAX}) {
    GgufBuilder b = Small();
    b.Set("a.thing", static_cast<GgufType>(type), "12345678");
    ExpectError(b, kInvalid, "key a.thing: unknown value type " + std::to_string(type));
    GgufBuilder array = Small();
    array.Set("a.things", GgufType::kArray, ArrayBytes(static_cast<GgufType>(type), 1, "12345678"));
    ExpectError(array, kInvalid, "key a.things: array: unknown value type " + std::to_string(type));
  }
}

TEST(GgufMalformed, BoolsThatAreNeither) {
  GgufBuilder b = Small();
  b.Set("a.bool", GgufType::kBool, Bytes<uint8_t>(2));
  ExpectError(b, kInvalid, "key a.bool: bool of value 2");
}

TEST(GgufMalformed, KeysTwiceOrWithoutName) {
  GgufBuilder b = Small();
  b.keys.push_back(b.keys[1]);
  ExpectError(b, kInvalid, "key a.number: appears twice");
  b.keys.back().name.clear();
  ExpectError(b, kInvalid, "key 3: no name");
}

TEST(GgufMalformed, TensorsTwiceOrWithoutName) {
  GgufBuilder b = Small();
  b.tensors.push_back(b.tensors[0]);
  ExpectError(b, kInvalid, "tensor first: appears twice");
  b.tensors.back().name.clear();
  ExpectError(b, kInvalid, "tensor 2: no name");
}

TEST(GgufMalformed, UnknownTensorTypes) {
  for (const uint32_t type : {4U, 16U, 31U, 1000U, UINT32_MAX}) {
    GgufBuilder b = Small();
    b.At("second").type = type;
    ExpectError(b, StatusCode::kUnimplemented,
                "tensor second: tensor type " + std::to_string(type));
  }
}

TEST(GgufMalformed, NumberOfDimensions) {
  for (const uint32_t n_dims : {0U, 5U, UINT32_MAX}) {
    GgufBuilder b = Small();
    b.At("second").n_dims = n_dims;
    ExpectError(b, kInvalid,
                "tensor second: " + std::to_string(n_dims) + " dimensions, expected 1 to 4");
  }
}

TEST(GgufMalformed, ZeroDimensions) {
  for (size_t i = 0; i < 4; ++i) {
    GgufBuilder b = Small();
    b.At("second").dimensions = {1, 1, 1, 1};
    b.At("second").dimensions[i] = 0;
    ExpectError(b, kInvalid, "tensor second: dimension " + std::to_string(i) + " of 4 is 0");
  }
}

TEST(GgufMalformed, ProductsThatOverflowOrExceedTheFile) {
  const uint64_t two32 = uint64_t{1} << 32;
  const std::vector<std::vector<uint64_t>> shapes = {
      {UINT64_MAX},
      {uint64_t{1} << 63},
      {uint64_t{1} << 62},           // times 4 bytes: 2^64
      {two32, two32},                // wraps to 0
      {1, two32, two32},             // as depth
      {1, 1, two32, two32},          // depth alone wraps
      {two32, 1, two32 / 2, 1},      // through all
      {1, uint64_t{1} << 62, 4, 1},  // rows, then depth
      {1000, 1000},                  // no overflow, only too large
  };
  for (const auto& shape : shapes) {
    GgufBuilder b = Small();
    b.At("second").dimensions = shape;
    ExpectError(b, kInvalid, "tensor second: shape [" + std::to_string(shape[0]));
  }
}

TEST(GgufMalformed, ColumnsThatAreNoMultipleOfTheBlock) {
  GgufBuilder b = Small();
  b.tensors.push_back(
      {"odd", {48, 2}, static_cast<uint32_t>(TensorType::kQ4_0), std::string(72, 'x')});
  ExpectError(b, kInvalid,
              "tensor odd: shape [48, 2]: 48 columns are not a multiple of the 32 values");
  b.tensors.back() = {
      "odd", {128, 2}, static_cast<uint32_t>(TensorType::kQ4_K), std::string(288, 'x')};
  ExpectError(b, kInvalid, "128 columns are not a multiple of the 256 values of a Q4_K block");
}

TEST(GgufMalformed, Alignment) {
  for (const uint32_t alignment : {0U, 1U, 4U, 13U, 24U, UINT32_MAX}) {
    GgufBuilder b = Small();
    b.SetUint("general.alignment", alignment);
    ExpectError(b, kInvalid,
                "key general.alignment: " + std::to_string(alignment) +
                    ", expected a power of two, at least 8");
  }
  GgufBuilder large = Small();
  large.SetUint("general.alignment", uint32_t{1} << 31);
  ExpectError(large, kInvalid, "tensor first: ");
}

TEST(GgufMalformed, AlignmentOfAnotherType) {
  GgufBuilder b = Small();
  b.SetString("general.alignment", "32");
  ExpectError(b, kInvalid, "key general.alignment: value type 8, expected 4 (uint32)");
  b.Set("general.alignment", GgufType::kUint64, Bytes<uint64_t>(32));
  ExpectError(b, kInvalid, "key general.alignment: value type 10, expected 4 (uint32)");
  b.SetInts("general.alignment", {32});
  ExpectError(b, kInvalid, "key general.alignment: value type 9, expected 4 (uint32)");
}

TEST(GgufMalformed, OffsetsThatAreNotAligned) {
  GgufBuilder b = Small();
  b.At("second").offset = 40;
  ExpectError(b, kInvalid, "tensor second: offset 40 is not a multiple of the alignment, 32");
}

TEST(GgufMalformed, OffsetsPastTheEnd) {
  for (const uint64_t offset : {uint64_t{64}, uint64_t{1} << 62, ~uint64_t{31}}) {
    GgufBuilder b = Small();
    b.At("second").offset = offset;
    ExpectError(b, kInvalid, "tensor second: 32 bytes at offset " + std::to_string(offset));
  }
}

TEST(GgufMalformed, TensorsThatOverlap) {
  GgufBuilder b = Small();
  b.At("second").offset = 0;
  ExpectError(b, kInvalid, "overlaps that of tensor");
  GgufBuilder partly = Small();
  partly.SetTensor("third", {64});
  partly.At("first").offset = 96;  // within third
  ExpectError(partly, kInvalid, "tensor first: its data at");
}

TEST(GgufMalformed, NamesOfAnyBytesAreShownPrintably) {
  GgufBuilder b = Small();
  b.Set("\xff\n" + std::string(300, 'k'), static_cast<GgufType>(99), "");
  ExpectError(b, kInvalid, R"(key \xff\x0akkkk)");
  const std::string message = ParseGguf(*b.File()).status().message();
  EXPECT_LT(message.size(), 200U);
}

TEST(GgufMalformed, EveryPrefixOfAFileIsRefused) {
  for (const std::string& bytes : {Small().Build(), TinyLlama().Build()}) {
    ASSERT_TRUE(ParseGguf(*FileOf(bytes)).ok());
    for (size_t length = 0; length < bytes.size(); ++length) {
      const auto gguf = ParseGguf(*FileOf(std::string_view(bytes).substr(0, length)));
      ASSERT_EQ(gguf.status().code(), kInvalid) << length << ": " << gguf.status().ToString();
    }
  }
}

// 20 MB of keys that are all right but for the last: the time is that of one walk. The bound is far
// above what it takes (some milliseconds) and far below anything quadratic.
TEST(GgufMalformed, AnErrorAtTheEndOfALongHeaderComesQuickly) {
  GgufBuilder b;
  b.SetStrings("texts", std::vector<std::string>(1000000, "some tokens"));
  b.Set("last", static_cast<GgufType>(77), "");
  const auto file = b.File();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(ParseGguf(*file).status().message(), HasSubstr("key last: unknown value type 77"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace thimble
