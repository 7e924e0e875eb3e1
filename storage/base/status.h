// Status and Result: how every fallible function of thimble reports failure.
//
// A Status is returned by value. Its code is one to one with gRPC's; its message names the
// operation, the object and the number: "read blk.3.attn_q.weight at offset 0x1f40: Input/output
// error". Nothing here allocates on success.
#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace thimble {

// The values are gRPC's status codes (grpc/doc/statuscodes.md): never change these values.
enum class StatusCode : uint8_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

// gRPC's spelling: "INVALID_ARGUMENT".
std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message)
      : error_(std::make_unique<Error>(Error{code, std::move(message)})) {}

  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;
  Status(const Status& other);
  Status& operator=(const Status& other);
  ~Status() = default;

  [[nodiscard]] bool ok() const { return error_ == nullptr; }
  [[nodiscard]] StatusCode code() const { return ok() ? StatusCode::kOk : error_->code; }
  [[nodiscard]] const std::string& message() const;
  // "INVALID_ARGUMENT: --context 0: at least 1".
  [[nodiscard]] std::string ToString() const;

 private:
  struct Error {
    StatusCode code;
    std::string message;
  };
  std::unique_ptr<Error> error_;
};

Status CancelledError(std::string message);
Status InvalidArgumentError(std::string message);
Status DeadlineExceededError(std::string message);
Status NotFoundError(std::string message);
Status AlreadyExistsError(std::string message);
Status PermissionDeniedError(std::string message);
Status ResourceExhaustedError(std::string message);
Status FailedPreconditionError(std::string message);
Status AbortedError(std::string message);
Status OutOfRangeError(std::string message);
Status UnimplementedError(std::string message);
Status InternalError(std::string message);
Status UnavailableError(std::string message);
Status DataLossError(std::string message);

// The operating system's view of `error_number`: "OPERATION: Input/output error". ENOSPC, EDQUOT
// and ENOMEM become RESOURCE_EXHAUSTED, ENOENT NOT_FOUND, EACCES and EPERM PERMISSION_DENIED,
// everything else UNAVAILABLE.
Status ErrnoError(int error_number, std::string_view operation);

// A T, or the Status that says why there is none. value() may be called only when ok().
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    assert(!status_.ok());
  }

  [[nodiscard]] bool ok() const { return value_.has_value(); }
  [[nodiscard]] const Status& status() const { return status_; }

  T& value() & { return assert(ok()), *value_; }
  const T& value() const& { return assert(ok()), *value_; }
  T&& value() && { return assert(ok()), std::move(*value_); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace thimble

#define THIMBLE_CONCAT_INNER_(a, b) a##b
#define THIMBLE_CONCAT_(a, b) THIMBLE_CONCAT_INNER_(a, b)

// Leaves the enclosing function with the Status of `expression` unless it is OK.
#define THIMBLE_RETURN_IF_ERROR(expression)                                      \
  do {                                                                           \
    if (::thimble::Status thimble_status_ = (expression); !thimble_status_.ok()) \
      return thimble_status_;                                                    \
  } while (false)

// THIMBLE_ASSIGN_OR_RETURN(const Gguf gguf, ParseGguf(file)): declares or assigns on success.
#define THIMBLE_ASSIGN_OR_RETURN(left, expression) \
  THIMBLE_ASSIGN_OR_RETURN_(THIMBLE_CONCAT_(thimble_result_, __LINE__), left, expression)
// `left` is a declaration or an assignment's left side and can't be in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define THIMBLE_ASSIGN_OR_RETURN_(result, left, expression) \
  auto result = (expression);                               \
  if (!result.ok()) return result.status();                 \
  left = std::move(result).value()
// NOLINTEND(bugprone-macro-parentheses)
