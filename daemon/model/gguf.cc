#include "daemon/model/gguf.h"

#include <array>

#include "daemon/model/gguf_cursor.h"

namespace thimble {
namespace {

constexpr uint64_t kMaxElementBytes = 65536;  // of a string in an array

std::string_view ValueKind(const GgufValue& value) {
  constexpr std::array<std::string_view, 6> kNames = {
      "an unsigned integer", "a signed integer", "a float", "a bool", "a string", "an array"};
  return kNames.at(value.index());
}

Status Missing(std::string_view key) {
  return InvalidArgumentError("key " + Printable(key) + ": missing");
}

Status WrongKind(std::string_view key, const GgufValue& value, std::string_view expected) {
  return InvalidArgumentError("key " + Printable(key) + ": " + std::string(ValueKind(value)) +
                              ", expected " + std::string(expected));
}

const GgufValue* Find(const Gguf& gguf, std::string_view key) {
  const auto found = gguf.metadata.find(key);
  return found == gguf.metadata.end() ? nullptr : &found->second;
}

// The value of `key` where it holds a T, an error that says what it holds otherwise.
template <typename T>
Result<T> GetAs(const Gguf& gguf, std::string_view key, std::string_view expected) {
  const GgufValue* value = Find(gguf, key);
  if (value == nullptr) return Missing(key);
  if (const T* typed = std::get_if<T>(value)) return *typed;
  return WrongKind(key, *value, expected);
}

template <typename Narrow, typename Wide, typename Visit>
Status VisitNumbers(GgufCursor& cursor, uint64_t count, const Visit& visit) {
  for (uint64_t i = 0; i < count; ++i) {
    Narrow number{};
    THIMBLE_RETURN_IF_ERROR(cursor.Read(&number));
    if constexpr (std::is_same_v<Narrow, uint64_t>) {
      if (number > static_cast<uint64_t>(INT64_MAX)) {
        return InvalidArgumentError("array element " + std::to_string(i) + ": " +
                                    std::to_string(number) + " is out of range");
      }
    }
    if (!visit(i, static_cast<Wide>(number))) return {};
  }
  return {};
}

Status WrongElement(const GgufArray& array, std::string_view expected) {
  return InvalidArgumentError("array of value type " +
                              std::to_string(static_cast<uint32_t>(array.element_type)) +
                              ", expected " + std::string(expected));
}

GgufCursor CursorOf(RandomAccessFile& file, const GgufArray& array) {
  return {file, array.offset, array.offset + array.bytes};
}

}  // namespace

const TensorInfo* Gguf::FindTensor(std::string_view name) const {
  const auto found = tensor_index.find(name);
  return found == tensor_index.end() ? nullptr : &tensors[found->second];
}

Result<uint64_t> Gguf::GetUint(std::string_view key) const {
  const GgufValue* value = Find(*this, key);
  if (value == nullptr) return Missing(key);
  if (const auto* number = std::get_if<uint64_t>(value)) return *number;
  if (const auto* number = std::get_if<int64_t>(value)) {
    if (*number >= 0) return static_cast<uint64_t>(*number);
    return InvalidArgumentError("key " + Printable(key) + ": " + std::to_string(*number) +
                                " is negative");
  }
  return WrongKind(key, *value, "an integer");
}

Result<uint64_t> Gguf::GetUintOr(std::string_view key, uint64_t fallback) const {
  if (Find(*this, key) == nullptr) return fallback;
  return GetUint(key);
}

Result<double> Gguf::GetFloat(std::string_view key) const {
  return GetAs<double>(*this, key, "a float");
}

Result<double> Gguf::GetFloatOr(std::string_view key, double fallback) const {
  if (Find(*this, key) == nullptr) return fallback;
  return GetFloat(key);
}

Result<bool> Gguf::GetBoolOr(std::string_view key, bool fallback) const {
  if (Find(*this, key) == nullptr) return fallback;
  return GetAs<bool>(*this, key, "a bool");
}

Result<std::string> Gguf::GetString(std::string_view key) const {
  return GetAs<std::string>(*this, key, "a string");
}

Result<std::string> Gguf::GetStringOr(std::string_view key, std::string_view fallback) const {
  if (Find(*this, key) == nullptr) return std::string(fallback);
  return GetString(key);
}

Result<const GgufArray*> Gguf::FindArray(std::string_view key, GgufType element_type) const {
  const GgufValue* value = Find(*this, key);
  if (value == nullptr) return static_cast<const GgufArray*>(nullptr);
  const auto* array = std::get_if<GgufArray>(value);
  if (array == nullptr) return WrongKind(key, *value, "an array");
  if (array->element_type != element_type) {
    return InContext("key", key,
                     WrongElement(*array, std::to_string(static_cast<uint32_t>(element_type))));
  }
  return array;
}

Status ForEachString(RandomAccessFile& file, const GgufArray& array,
                     const std::function<bool(uint64_t index, std::string_view text)>& visit) {
  if (array.element_type != GgufType::kString) return WrongElement(array, "strings");
  GgufCursor cursor = CursorOf(file, array);
  std::string text;
  for (uint64_t i = 0; i < array.count; ++i) {
    if (Status status = cursor.ReadString(kMaxElementBytes, &text); !status.ok()) {
      return InContext("array element " + std::to_string(i), "", std::move(status));
    }
    if (!visit(i, text)) return {};
  }
  return {};
}

Status ForEachFloat(RandomAccessFile& file, const GgufArray& array,
                    const std::function<bool(uint64_t index, float value)>& visit) {
  if (array.element_type != GgufType::kFloat32) return WrongElement(array, "float32");
  GgufCursor cursor = CursorOf(file, array);
  return VisitNumbers<float, float>(cursor, array.count, visit);
}

Status ForEachInt(RandomAccessFile& file, const GgufArray& array,
                  const std::function<bool(uint64_t index, int64_t value)>& visit) {
  GgufCursor cursor = CursorOf(file, array);
  switch (array.element_type) {
    case GgufType::kUint8:
    case GgufType::kBool:
      return VisitNumbers<uint8_t, int64_t>(cursor, array.count, visit);
    case GgufType::kInt8:
      return VisitNumbers<int8_t, int64_t>(cursor, array.count, visit);
    case GgufType::kUint16:
      return VisitNumbers<uint16_t, int64_t>(cursor, array.count, visit);
    case GgufType::kInt16:
      return VisitNumbers<int16_t, int64_t>(cursor, array.count, visit);
    case GgufType::kUint32:
      return VisitNumbers<uint32_t, int64_t>(cursor, array.count, visit);
    case GgufType::kInt32:
      return VisitNumbers<int32_t, int64_t>(cursor, array.count, visit);
    case GgufType::kUint64:
      return VisitNumbers<uint64_t, int64_t>(cursor, array.count, visit);
    case GgufType::kInt64:
      return VisitNumbers<int64_t, int64_t>(cursor, array.count, visit);
    default:
      return WrongElement(array, "integers");
  }
}

}  // namespace thimble
