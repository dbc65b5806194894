#include "napi/errors.h"

#include <cctype>
#include <string>

#include "napi/loop.h"

namespace praas::napi {

namespace {

/// Every Code is below this; the gaps between the groups are small.
constexpr uint16_t kCodeLimit = 128;

void Set(napi_env env, napi_value object, const char* name, napi_value value) noexcept {
  // An object that was just made takes any property; a failure means that the environment is ending.
  static_cast<void>(napi_set_named_property(env, object, name, value));
}

napi_value Text(napi_env env, std::string_view text) noexcept {
  napi_value value = nullptr;
  static_cast<void>(napi_create_string_utf8(env, text.data(), text.size(), &value));
  return value;
}

/// The call in a message of Status::System, "context: shm_open /name: No such file or directory" → "shm_open".
std::string_view SystemCall(std::string_view message) noexcept {
  const size_t reason = message.rfind(": ");
  if (reason == std::string_view::npos) return {};
  std::string_view what = message.substr(0, reason);
  if (const size_t context = what.rfind(": "); context != std::string_view::npos) what.remove_prefix(context + 2);
  size_t length = 0;
  while (length < what.size() && (std::isalnum(static_cast<unsigned char>(what[length])) != 0 || what[length] == '_')) {
    ++length;
  }
  return what.substr(0, length);
}

Napi::Error ArgumentError(napi_env env, const std::string& message,
                          napi_status (*create)(napi_env, napi_value, napi_value, napi_value*)) {
  napi_value error = nullptr;
  if (create(env, Text(env, CodeName(Code::kArgumentInvalid)), Text(env, message), &error) != napi_ok) {
    return Napi::Error::New(env, message);
  }
  return Napi::Error(env, error);
}

}  // namespace

napi_value JsError(napi_env env, const Status& status) noexcept {
  const bool system = status.code() == Code::kSystem && status.sys_errno() != 0;
  const std::string_view code = system ? ErrnoName(status.sys_errno()) : CodeName(status.code());
  napi_value error = nullptr;
  if (napi_create_error(env, Text(env, code), Text(env, status.message()), &error) != napi_ok) return nullptr;
  if (status.sys_errno() != 0) {
    napi_value number = nullptr;
    if (napi_create_int32(env, -status.sys_errno(), &number) == napi_ok) Set(env, error, "errno", number);
  }
  if (system) {
    const std::string_view call = SystemCall(status.message());
    if (!call.empty()) Set(env, error, "syscall", Text(env, call));
  }
  return error;
}

Napi::Error ToJsError(napi_env env, const Status& status) {
  napi_value error = JsError(env, status);
  return error == nullptr ? Napi::Error::New(env, status.message()) : Napi::Error(env, error);
}

Napi::Error WrongType(napi_env env, std::string_view argument, std::string_view wanted) {
  return ArgumentError(env, std::string(argument) + " must be " + std::string(wanted), napi_create_type_error);
}

Napi::Error OutOfRange(napi_env env, std::string_view argument, std::string_view bounds) {
  return ArgumentError(env, std::string(argument) + " must be " + std::string(bounds), napi_create_range_error);
}

Code CodeFromName(std::string_view name) noexcept {
  for (uint16_t number = 1; number < kCodeLimit; ++number) {
    const Code code = static_cast<Code>(number);
    if (CodeName(code) == name) return code;
  }
  return Code::kInternal;
}

std::string TakeException(napi_env env) noexcept {
  napi_value exception = nullptr;
  napi_value text = nullptr;
  size_t length = 0;
  std::string message;
  if (napi_get_and_clear_last_exception(env, &exception) == napi_ok &&
      napi_coerce_to_string(env, exception, &text) == napi_ok &&
      napi_get_value_string_utf8(env, text, nullptr, 0, &length) == napi_ok) {
    message.resize(length);
    static_cast<void>(napi_get_value_string_utf8(env, text, message.data(), length + 1, &length));
  } else {
    // The exception's own toString threw, or the environment is ending.
    static_cast<void>(napi_get_and_clear_last_exception(env, &exception));
    message = "something that cannot be shown as text";
  }
  return message;
}

void ReportException(napi_env env) noexcept {
  bool pending = false;
  napi_value exception = nullptr;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  if (napi_get_and_clear_last_exception(env, &exception) != napi_ok) return;
  static_cast<void>(napi_fatal_exception(env, exception));
}

}  // namespace praas::napi
