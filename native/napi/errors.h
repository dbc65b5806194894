#pragma once

#include <string_view>
#include <utility>

#include "base/result.h"
#include "base/status.h"
#include "napi/setup.h"

/// The one place where a Status becomes a JavaScript error.
namespace praas::napi {

/// An `Error` with `code` (ours, or the OS name of an OS failure), and for OS failures `errno` (negative, as Node has
/// it) and `syscall`. Throws nothing itself; an environment that is ending yields whatever value it still can give.
[[nodiscard]] napi_value JsError(napi_env env, const Status& status) noexcept;

/// The same to be thrown: `throw ToJsError(env, status)`.
[[nodiscard]] Napi::Error ToJsError(napi_env env, const Status& status);

/// An argument of the wrong type, and one out of its range; both carry ERR_ARGUMENT_INVALID.
[[nodiscard]] Napi::Error WrongType(napi_env env, std::string_view argument, std::string_view wanted);
[[nodiscard]] Napi::Error OutOfRange(napi_env env, std::string_view argument, std::string_view bounds);

/// The code that CodeName calls `name`; kInternal when there is none.
[[nodiscard]] Code CodeFromName(std::string_view name) noexcept;

inline void OrThrow(napi_env env, const Status& status) {
  if (!status.ok()) throw ToJsError(env, status);
}

template <typename T>
[[nodiscard]] T OrThrow(napi_env env, Result<T>&& result) {
  if (!result.ok()) throw ToJsError(env, result.status());
  return std::move(result).value();
}

/// What JavaScript threw, taken off the environment, as one line for messages that go elsewhere.
[[nodiscard]] std::string TakeException(napi_env env) noexcept;

/// Hands a pending exception of a callback to the environment's 'uncaughtException'.
void ReportException(napi_env env) noexcept;

}  // namespace praas::napi
