#include "storage/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace thimble {
namespace {

TEST(Status, IsOkByDefaultAndKeepsCodeAndMessage) {
  const Status ok;
  EXPECT_TRUE(ok.ok());
  EXPECT_EQ(ok.code(), StatusCode::kOk);
  EXPECT_EQ(ok.message(), "");
  EXPECT_EQ(ok.ToString(), "OK");
  const Status error = NotFoundError("open x: no such file");
  EXPECT_FALSE(error.ok());
  EXPECT_EQ(error.ToString(), "NOT_FOUND: open x: no such file");
}

TEST(Status, CopiesAreIndependent) {
  Status a = AbortedError("a");
  const Status b = a;
  a = Status();
  EXPECT_TRUE(a.ok());
  EXPECT_EQ(b.message(), "a");
  a = b;
  EXPECT_EQ(a.code(), StatusCode::kAborted);
}

TEST(Status, CodesAreThoseOfGrpc) {
  EXPECT_EQ(static_cast<int>(CancelledError("").code()), 1);
  EXPECT_EQ(static_cast<int>(InvalidArgumentError("").code()), 3);
  EXPECT_EQ(static_cast<int>(DeadlineExceededError("").code()), 4);
  EXPECT_EQ(static_cast<int>(NotFoundError("").code()), 5);
  EXPECT_EQ(static_cast<int>(AlreadyExistsError("").code()), 6);
  EXPECT_EQ(static_cast<int>(PermissionDeniedError("").code()), 7);
  EXPECT_EQ(static_cast<int>(ResourceExhaustedError("").code()), 8);
  EXPECT_EQ(static_cast<int>(FailedPreconditionError("").code()), 9);
  EXPECT_EQ(static_cast<int>(AbortedError("").code()), 10);
  EXPECT_EQ(static_cast<int>(OutOfRangeError("").code()), 11);
  EXPECT_EQ(static_cast<int>(UnimplementedError("").code()), 12);
  EXPECT_EQ(static_cast<int>(InternalError("").code()), 13);
  EXPECT_EQ(static_cast<int>(UnavailableError("").code()), 14);
  EXPECT_EQ(static_cast<int>(DataLossError("").code()), 15);
  EXPECT_EQ(StatusCodeName(StatusCode::kResourceExhausted), "RESOURCE_EXHAUSTED");
}

TEST(Status, ErrnoErrorsTellAFullDiskFromABrokenOne) {
  EXPECT_EQ(ErrnoError(ENOSPC, "w").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoError(ENOENT, "w").code(), StatusCode::kNotFound);
  EXPECT_EQ(ErrnoError(EACCES, "w").code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoError(EIO, "read x at 5").ToString(),
            "UNAVAILABLE: read x at 5: Input/output error");
}

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidArgumentError("odd");
  return n / 2;
}
Result<int> Quarter(int n) {
  THIMBLE_ASSIGN_OR_RETURN(const int half, Half(n));
  return Half(half);
}

TEST(Result, HoldsAValueOrTheReasonThereIsNone) {
  EXPECT_EQ(Quarter(12).value(), 3);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_FALSE(Quarter(3).ok());
  Result<std::unique_ptr<int>> moved = std::make_unique<int>(4);
  const std::unique_ptr<int> taken = std::move(moved).value();
  EXPECT_EQ(*taken, 4);
}

}  // namespace
}  // namespace thimble
