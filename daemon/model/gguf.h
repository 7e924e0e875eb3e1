// GGUF version 2 and 3, read as it is.
// Specification: github.com/ggml-org/ggml/blob/master/docs/gguf.md.
//
// ParseGguf walks the header once, with pread, and validates all of it before anything large is
// allocated: every count, length, offset, alignment, type and dimension product against the file's
// own size; duplicate keys and tensor names. It takes time linear in the header and holds the
// scalars, the short strings and one TensorInfo a tensor; long arrays (a vocabulary) stay in the
// file and are read back by ForEachString, ForEachFloat and ForEachInt.
// Called by: model loading, `thimble plan`, `tokenize`, `logits`. Memory: about 200 bytes a tensor
// or key (at most 16384 tensors and 4096 keys), plus the strings that are not in arrays (at most 1
// MiB each and 4 MiB in all; a chat template is some KiB); 64 KiB while it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "daemon/model/tensor_type.h"
#include "storage/base/file.h"
#include "storage/base/status.h"

namespace thimble {

// The specification's metadata value types: never change these values.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// An array's place in the file. Its elements have been walked and lie within the file.
struct GgufArray {
  GgufType element_type;
  uint64_t count = 0;
  uint64_t offset = 0;  // of the first element, from the start of the file
  uint64_t bytes = 0;   // of all elements, string lengths included
};

// Integers are widened, keeping their sign; float32 is widened.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string, GgufArray>;

struct TensorInfo {
  std::string name;
  TensorType type = TensorType::kF32;
  uint64_t columns = 0;  // ne[0]: inputs of a matrix, the length of a vector
  uint64_t rows = 0;     // ne[1]: outputs of a matrix; 1 for a vector
  uint64_t depth = 1;    // ne[2] * ne[3]: 1 for every tensor that a Model uses
  uint64_t offset = 0;   // of the data, from the start of the file
  uint64_t bytes = 0;    // depth * rows * RowBytes(type, columns)
};

struct Gguf {
  uint32_t version = 0;
  uint64_t file_bytes = 0;
  uint64_t data_offset = 0;  // where tensor data begins
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<TensorInfo> tensors;                          // in the file's order
  std::map<std::string, size_t, std::less<>> tensor_index;  // name -> index in `tensors`

  // The named tensor or nullptr.
  [[nodiscard]] const TensorInfo* FindTensor(std::string_view name) const;

  // Typed access; the error names the key: INVALID_ARGUMENT where it is missing, of another type or
  // out of range. The *Or forms return `fallback` where the key is missing, and the same errors.
  [[nodiscard]] Result<uint64_t> GetUint(std::string_view key) const;
  [[nodiscard]] Result<uint64_t> GetUintOr(std::string_view key, uint64_t fallback) const;
  [[nodiscard]] Result<double> GetFloat(std::string_view key) const;
  [[nodiscard]] Result<double> GetFloatOr(std::string_view key, double fallback) const;
  [[nodiscard]] Result<bool> GetBoolOr(std::string_view key, bool fallback) const;
  [[nodiscard]] Result<std::string> GetString(std::string_view key) const;
  [[nodiscard]] Result<std::string> GetStringOr(std::string_view key,
                                                std::string_view fallback) const;
  // nullptr where there is no such key; an error where it is not an array of `element_type`.
  [[nodiscard]] Result<const GgufArray*> FindArray(std::string_view key,
                                                   GgufType element_type) const;
};

// Parses and validates the header of `file`. Every error names the key or the tensor:
// INVALID_ARGUMENT for a malformed file; UNIMPLEMENTED for a version, tensor type or nested array
// that thimble does not read; RESOURCE_EXHAUSTED for more keys, tensors or strings than it keeps.
// Tensors lie within the file, aligned as the file says, and do not overlap.
Result<Gguf> ParseGguf(RandomAccessFile& file);

// Visits an array's elements in order, reading the file through a small buffer (64 KiB). The
// visitor returns false to stop early. The string passed is valid during the call only; strings are
// bounded by 64 KiB.
Status ForEachString(RandomAccessFile& file, const GgufArray& array,
                     const std::function<bool(uint64_t index, std::string_view text)>& visit);
Status ForEachFloat(RandomAccessFile& file, const GgufArray& array,
                    const std::function<bool(uint64_t index, float value)>& visit);
Status ForEachInt(RandomAccessFile& file, const GgufArray& array,
                  const std::function<bool(uint64_t index, int64_t value)>& visit);

}  // namespace thimble
