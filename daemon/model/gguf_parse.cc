// ParseGguf: one walk through the header, in the order of the file: magic, version, counts, keys,
// tensor descriptions; then the tensors' places. A count is compared with the bytes that are left
// before anything is done with it, so that the time is linear in the file whatever the file claims.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "daemon/model/gguf.h"
#include "daemon/model/gguf_cursor.h"
#include "storage/base/bytes.h"

namespace thimble {
namespace {

// The least a key takes: length and one byte of name, type, one byte of value.
constexpr uint64_t kLeastKeyBytes = 8 + 1 + 4 + 1;
// The least a tensor's description takes: length and one byte of name, n_dims, one dimension, type,
// offset.
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// What the daemon is willing to keep of one header: under 10 MiB, where the largest dense models
// known have 2,000 tensors, 60 keys and a chat template of 20 KiB.
constexpr uint64_t kMaxKeys = 4096;
constexpr uint64_t kMaxTensors = 16384;
constexpr uint64_t kMaxStringBytes = kMiB;
constexpr uint64_t kMaxMetadataBytes = 4 * kMiB;  // all names and strings together
constexpr uint64_t kMaxKeyBytes = 65535;          // the specification's
constexpr uint64_t kMaxTensorNameBytes = 255;     // the specification has 64
constexpr uint64_t kDefaultAlignment = 32;
constexpr std::string_view kAlignmentKey = "general.alignment";

std::string Dimensions(const std::array<uint64_t, 4>& ne, uint32_t n_dims) {
  std::string text = "[";
  for (uint32_t i = 0; i < n_dims; ++i) text += (i > 0 ? ", " : "") + std::to_string(ne[i]);
  return text + "]";
}

// Bytes of an element, or 0 for strings and arrays, whose elements differ.
uint64_t FixedBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

class Parser {
 public:
  Parser(RandomAccessFile& file, uint64_t file_bytes) : cursor_(file, 0, file_bytes) {
    gguf_.file_bytes = file_bytes;
  }

  Status Run();
  Gguf Take() && { return std::move(gguf_); }

 private:
  Status ReadMagicAndVersion();
  Status ReadCount(std::string_view what, uint64_t least_bytes, uint64_t limit, uint64_t* count);
  Status ReadType(GgufType* type);
  Status ReadKey(uint64_t index);
  Status ReadValue(const std::string& key, GgufType type, GgufValue* value);
  Status ReadArray(GgufArray* array);
  Status ReadTensor(uint64_t index);
  Status ReadTensorShape(TensorInfo* tensor);
  Status CheckAlignment();
  Status PlaceTensor(TensorInfo* tensor) const;
  Status CheckOverlaps() const;
  template <typename Narrow, typename Wide>
  Status ReadNumber(GgufValue* value);

  GgufCursor cursor_;
  Gguf gguf_;
  uint64_t alignment_ = kDefaultAlignment;
  uint64_t metadata_bytes_ = 0;
};

Status Parser::ReadMagicAndVersion() {
  std::array<char, 4> magic{};
  THIMBLE_RETURN_IF_ERROR(InContext("magic", "", cursor_.Read(magic.data(), magic.size())));
  if (std::string_view(magic.data(), magic.size()) != "GGUF") {
    return InvalidArgumentError("magic: \"" + Printable({magic.data(), magic.size()}) +
                                "\", expected \"GGUF\": not a GGUF file");
  }
  THIMBLE_RETURN_IF_ERROR(InContext("version", "", cursor_.Read(&gguf_.version)));
  if (gguf_.version == 2 || gguf_.version == 3) return {};
  const uint32_t swapped = __builtin_bswap32(gguf_.version);
  if (swapped >= 1 && swapped <= 3) {
    return UnimplementedError("version: a big-endian file of version " + std::to_string(swapped) +
                              ": thimble reads little-endian files");
  }
  const std::string message =
      "version: " + std::to_string(gguf_.version) + ": thimble reads versions 2 and 3";
  return gguf_.version == 0 ? InvalidArgumentError(message) : UnimplementedError(message);
}

Status Parser::ReadCount(std::string_view what, uint64_t least_bytes, uint64_t limit,
                         uint64_t* count) {
  THIMBLE_RETURN_IF_ERROR(InContext(what, "", cursor_.Read(count)));
  if (*count > cursor_.remaining() / least_bytes) {
    return InvalidArgumentError(std::string(what) + ": " + std::to_string(*count) +
                                ", more than the file's " + std::to_string(gguf_.file_bytes) +
                                " bytes can hold");
  }
  if (*count > limit) {
    return ResourceExhaustedError(std::string(what) + ": " + std::to_string(*count) +
                                  ", more than the " + std::to_string(limit) +
                                  " that thimble reads");
  }
  return {};
}

Status Parser::ReadType(GgufType* type) {
  uint32_t number = 0;
  THIMBLE_RETURN_IF_ERROR(InContext("type", "", cursor_.Read(&number)));
  if (number > static_cast<uint32_t>(GgufType::kFloat64)) {
    return InvalidArgumentError("unknown value type " + std::to_string(number));
  }
  *type = static_cast<GgufType>(number);
  return {};
}

template <typename Narrow, typename Wide>
Status Parser::ReadNumber(GgufValue* value) {
  Narrow number{};
  THIMBLE_RETURN_IF_ERROR(cursor_.Read(&number));
  *value = static_cast<Wide>(number);
  return {};
}

Status Parser::ReadValue(const std::string& key, GgufType type, GgufValue* value) {
  if (key == kAlignmentKey && type != GgufType::kUint32) {
    return InvalidArgumentError("value type " + std::to_string(static_cast<uint32_t>(type)) +
                                ", expected 4 (uint32)");
  }
  switch (type) {
    case GgufType::kUint8:
      return ReadNumber<uint8_t, uint64_t>(value);
    case GgufType::kInt8:
      return ReadNumber<int8_t, int64_t>(value);
    case GgufType::kUint16:
      return ReadNumber<uint16_t, uint64_t>(value);
    case GgufType::kInt16:
      return ReadNumber<int16_t, int64_t>(value);
    case GgufType::kUint32:
      return ReadNumber<uint32_t, uint64_t>(value);
    case GgufType::kInt32:
      return ReadNumber<int32_t, int64_t>(value);
    case GgufType::kUint64:
      return ReadNumber<uint64_t, uint64_t>(value);
    case GgufType::kInt64:
      return ReadNumber<int64_t, int64_t>(value);
    case GgufType::kFloat32:
      return ReadNumber<float, double>(value);
    case GgufType::kFloat64:
      return ReadNumber<double, double>(value);
    case GgufType::kBool: {
      uint8_t byte = 0;
      THIMBLE_RETURN_IF_ERROR(cursor_.Read(&byte));
      if (byte > 1) return InvalidArgumentError("bool of value " + std::to_string(byte));
      *value = byte == 1;
      return {};
    }
    case GgufType::kString: {
      std::string text;
      THIMBLE_RETURN_IF_ERROR(cursor_.ReadString(kMaxStringBytes, &text));
      metadata_bytes_ += text.size();
      *value = std::move(text);
      return {};
    }
    case GgufType::kArray: {
      GgufArray array{};
      THIMBLE_RETURN_IF_ERROR(ReadArray(&array));
      *value = array;
      return {};
    }
  }
  return InternalError("unknown value type");
}

Status Parser::ReadArray(GgufArray* array) {
  THIMBLE_RETURN_IF_ERROR(InContext("array", "", ReadType(&array->element_type)));
  if (array->element_type == GgufType::kArray) {
    return UnimplementedError("an array of arrays: thimble reads arrays of numbers and strings");
  }
  THIMBLE_RETURN_IF_ERROR(InContext("array length", "", cursor_.Read(&array->count)));
  const uint64_t fixed = FixedBytes(array->element_type);
  const uint64_t least = fixed > 0 ? fixed : sizeof(uint64_t);  // A string has at least its length.
  if (array->count > cursor_.remaining() / least) {
    return InvalidArgumentError("array of " + std::to_string(array->count) +
                                " elements: more than the " + std::to_string(cursor_.remaining()) +
                                " bytes left in the file can hold");
  }
  array->offset = cursor_.position();
  if (fixed > 0) {
    THIMBLE_RETURN_IF_ERROR(cursor_.Skip(array->count * fixed));
  } else {
    for (uint64_t i = 0; i < array->count; ++i) {
      if (Status status = cursor_.SkipString(); !status.ok()) {
        return InContext("array element " + std::to_string(i), "", std::move(status));
      }
    }
  }
  array->bytes = cursor_.position() - array->offset;
  return {};
}

Status Parser::ReadKey(uint64_t index) {
  std::string key;
  if (Status status = cursor_.ReadString(kMaxKeyBytes, &key); !status.ok()) {
    return InContext("name of key " + std::to_string(index), "", std::move(status));
  }
  if (key.empty()) return InvalidArgumentError("key " + std::to_string(index) + ": no name");
  if (gguf_.metadata.contains(key)) {
    return InvalidArgumentError("key " + Printable(key) + ": appears twice");
  }
  GgufType type{};
  GgufValue value;
  THIMBLE_RETURN_IF_ERROR(InContext("key", key, ReadType(&type)));
  THIMBLE_RETURN_IF_ERROR(InContext("key", key, ReadValue(key, type, &value)));
  metadata_bytes_ += key.size();
  if (metadata_bytes_ > kMaxMetadataBytes) {
    return ResourceExhaustedError("key " + Printable(key) + ": names and strings of more than " +
                                  std::to_string(kMaxMetadataBytes) + " bytes in all");
  }
  gguf_.metadata.emplace(std::move(key), std::move(value));
  return {};
}

Status Parser::CheckAlignment() {
  const auto found = gguf_.metadata.find(kAlignmentKey);
  if (found == gguf_.metadata.end()) return {};
  alignment_ = std::get<uint64_t>(found->second);  // ReadValue has checked the type.
  if (alignment_ < 8 || !std::has_single_bit(alignment_)) {
    return InvalidArgumentError("key general.alignment: " + std::to_string(alignment_) +
                                ", expected a power of two, at least 8");
  }
  return {};
}

Status Parser::ReadTensor(uint64_t index) {
  TensorInfo tensor;
  if (Status status = cursor_.ReadString(kMaxTensorNameBytes, &tensor.name); !status.ok()) {
    return InContext("name of tensor " + std::to_string(index), "", std::move(status));
  }
  if (tensor.name.empty()) {
    return InvalidArgumentError("tensor " + std::to_string(index) + ": no name");
  }
  if (gguf_.tensor_index.contains(tensor.name)) {
    return InvalidArgumentError("tensor " + Printable(tensor.name) + ": appears twice");
  }
  THIMBLE_RETURN_IF_ERROR(InContext("tensor", tensor.name, ReadTensorShape(&tensor)));
  gguf_.tensor_index.emplace(tensor.name, gguf_.tensors.size());
  gguf_.tensors.push_back(std::move(tensor));
  return {};
}

Status Parser::ReadTensorShape(TensorInfo* tensor) {
  uint32_t n_dims = 0;
  THIMBLE_RETURN_IF_ERROR(InContext("n_dims", "", cursor_.Read(&n_dims)));
  if (n_dims < 1 || n_dims > 4) {
    return InvalidArgumentError(std::to_string(n_dims) + " dimensions, expected 1 to 4");
  }
  std::array<uint64_t, 4> ne = {1, 1, 1, 1};
  for (uint32_t i = 0; i < n_dims; ++i) {
    THIMBLE_RETURN_IF_ERROR(InContext("dimensions", "", cursor_.Read(&ne[i])));
    if (ne[i] == 0) {
      return InvalidArgumentError("dimension " + std::to_string(i) + " of " +
                                  std::to_string(n_dims) + " is 0");
    }
  }
  uint32_t type = 0;
  THIMBLE_RETURN_IF_ERROR(InContext("type", "", cursor_.Read(&type)));
  const TensorTypeTraits* traits = FindTensorType(type);
  if (traits == nullptr) {
    return UnimplementedError("tensor type " + std::to_string(type) +
                              " is not one that thimble reads");
  }
  tensor->type = static_cast<TensorType>(type);
  if (ne[0] % traits->block_elements != 0) {
    return InvalidArgumentError("shape " + Dimensions(ne, n_dims) + ": " + std::to_string(ne[0]) +
                                " columns are not a multiple of the " +
                                std::to_string(traits->block_elements) + " values of a " +
                                std::string(traits->name) + " block");
  }
  tensor->columns = ne[0];
  tensor->rows = ne[1];
  const bool fits =
      CheckedMul(ne[0] / traits->block_elements, traits->block_bytes, &tensor->bytes) &&
      CheckedMul(tensor->bytes, ne[1], &tensor->bytes) &&
      CheckedMul(ne[2], ne[3], &tensor->depth) &&
      CheckedMul(tensor->bytes, tensor->depth, &tensor->bytes);
  if (!fits || tensor->bytes > gguf_.file_bytes) {
    return InvalidArgumentError("shape " + Dimensions(ne, n_dims) +
                                ": more bytes than the file has, " +
                                std::to_string(gguf_.file_bytes));
  }
  // From the beginning of the data here; PlaceTensor makes it the file's.
  return InContext("offset", "", cursor_.Read(&tensor->offset));
}

Status Parser::PlaceTensor(TensorInfo* tensor) const {
  const uint64_t relative = tensor->offset;
  if (relative % alignment_ != 0) {
    return InvalidArgumentError("offset " + std::to_string(relative) +
                                " is not a multiple of the alignment, " +
                                std::to_string(alignment_));
  }
  uint64_t end = 0;
  if (!CheckedAdd(gguf_.data_offset, relative, &tensor->offset) ||
      !CheckedAdd(tensor->offset, tensor->bytes, &end) || end > gguf_.file_bytes) {
    return InvalidArgumentError(
        std::to_string(tensor->bytes) + " bytes at offset " + std::to_string(relative) +
        " of the data, which begins at " + std::to_string(gguf_.data_offset) +
        ": past the end of the file at " + std::to_string(gguf_.file_bytes));
  }
  return {};
}

Status Parser::CheckOverlaps() const {
  std::vector<size_t> order(gguf_.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto offset = [this](size_t i) { return gguf_.tensors[i].offset; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return offset(a) < offset(b); });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorInfo& before = gguf_.tensors[order[i - 1]];
    const TensorInfo& after = gguf_.tensors[order[i]];
    if (before.offset + before.bytes > after.offset) {
      return InvalidArgumentError("tensor " + Printable(after.name) + ": its data at " +
                                  std::to_string(after.offset) + " overlaps that of tensor " +
                                  Printable(before.name) + ", " + std::to_string(before.bytes) +
                                  " bytes at " + std::to_string(before.offset));
    }
  }
  return {};
}

Status Parser::Run() {
  THIMBLE_RETURN_IF_ERROR(ReadMagicAndVersion());
  uint64_t n_tensors = 0;
  uint64_t n_keys = 0;
  THIMBLE_RETURN_IF_ERROR(ReadCount("tensor count", kLeastTensorBytes, kMaxTensors, &n_tensors));
  THIMBLE_RETURN_IF_ERROR(ReadCount("key count", kLeastKeyBytes, kMaxKeys, &n_keys));
  for (uint64_t i = 0; i < n_keys; ++i) THIMBLE_RETURN_IF_ERROR(ReadKey(i));
  THIMBLE_RETURN_IF_ERROR(CheckAlignment());
  for (uint64_t i = 0; i < n_tensors; ++i) THIMBLE_RETURN_IF_ERROR(ReadTensor(i));

  // A file without tensors may end unpadded.
  const uint64_t aligned = AlignUp(cursor_.position(), alignment_);
  gguf_.data_offset = n_tensors > 0 ? aligned : std::min(aligned, gguf_.file_bytes);
  for (TensorInfo& tensor : gguf_.tensors) {
    THIMBLE_RETURN_IF_ERROR(InContext("tensor", tensor.name, PlaceTensor(&tensor)));
  }
  return CheckOverlaps();
}

}  // namespace

Result<Gguf> ParseGguf(RandomAccessFile& file) {
  THIMBLE_ASSIGN_OR_RETURN(const FileIdentity identity, file.Identity());
  Parser parser(file, identity.size_bytes);
  if (Status status = parser.Run(); !status.ok()) {
    return Status(status.code(), "parse " + file.path() + ": " + status.message());
  }
  return std::move(parser).Take();
}

}  // namespace thimble
