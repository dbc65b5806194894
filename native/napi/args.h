#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "napi/errors.h"
#include "napi/setup.h"

/// Readers of arguments: a plain C++ value, or a TypeError or RangeError that names the argument.
namespace praas::napi {

/// Longest wait that can be asked for (about 31 years): a deadline always exists.
inline constexpr double kMaxWaitMs = 1e12;

[[nodiscard]] inline double ReadNumber(napi_env env, napi_value value, const char* name) {
  double number = 0;
  if (value == nullptr || napi_get_value_double(env, value, &number) != napi_ok) throw WrongType(env, name, "a number");
  return number;
}

/// An integer in [low, high]; `high` up to 2^53.
[[nodiscard]] inline uint64_t ReadInteger(napi_env env, napi_value value, const char* name, uint64_t low,
                                          uint64_t high) {
  const double number = ReadNumber(env, value, name);
  if (!(number >= static_cast<double>(low) && number <= static_cast<double>(high)) || std::floor(number) != number) {
    throw OutOfRange(env, name, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return static_cast<uint64_t>(number);
}

[[nodiscard]] inline uint32_t ReadUint32(napi_env env, napi_value value, const char* name, uint32_t high = UINT32_MAX) {
  return static_cast<uint32_t>(ReadInteger(env, value, name, 0, high));
}

inline constexpr uint64_t kMaxSafeInteger = (uint64_t{1} << 53) - 1;

/// Milliseconds, fractions allowed, as nanoseconds.
[[nodiscard]] inline uint64_t ReadDuration(napi_env env, napi_value value, const char* name) {
  const double ms = ReadNumber(env, value, name);
  if (!(ms >= 0 && ms <= kMaxWaitMs)) throw OutOfRange(env, name, "milliseconds from 0 to 1e12");
  return static_cast<uint64_t>(ms * 1e6);
}

[[nodiscard]] inline uint64_t ReadDeadline(napi_env env, napi_value value, const char* name) {
  return DeadlineIn(ReadDuration(env, value, name));
}

/// A point in time in milliseconds of CLOCK_MONOTONIC, fractions allowed.
[[nodiscard]] inline uint64_t ReadMonotonic(napi_env env, napi_value value, const char* name) {
  return ReadDuration(env, value, name);
}

[[nodiscard]] inline bool ReadFlag(napi_env env, napi_value value, const char* name) {
  bool flag = false;
  if (value == nullptr || napi_get_value_bool(env, value, &flag) != napi_ok) throw WrongType(env, name, "a boolean");
  return flag;
}

[[nodiscard]] inline std::string ReadText(napi_env env, napi_value value, const char* name) {
  size_t length = 0;
  if (value == nullptr || napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
    throw WrongType(env, name, "a string");
  }
  std::string text(length, '\0');
  static_cast<void>(napi_get_value_string_utf8(env, value, text.data(), length + 1, &length));
  return text;
}

/// An id or version: a bigint that fits 64 bits unsigned.
[[nodiscard]] inline uint64_t ReadId(napi_env env, napi_value value, const char* name) {
  uint64_t id = 0;
  bool lossless = false;
  if (value == nullptr || napi_get_value_bigint_uint64(env, value, &id, &lossless) != napi_ok) {
    throw WrongType(env, name, "a bigint");
  }
  if (!lossless) throw OutOfRange(env, name, "a bigint from 0 to 2^64 - 1");
  return id;
}

/// The bytes of a Uint8Array (or Buffer), in place. Valid while the array is alive and its buffer is not detached.
[[nodiscard]] inline std::optional<std::span<std::byte>> TryReadBytes(napi_env env, napi_value value) noexcept {
  napi_typedarray_type type{};
  size_t length = 0;
  void* data = nullptr;
  if (value == nullptr || napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    return std::nullopt;
  }
  if (length == 0) return std::span<std::byte>{};
  return std::span(static_cast<std::byte*>(data), length);
}

[[nodiscard]] inline std::span<std::byte> ReadBytes(napi_env env, napi_value value, const char* name) {
  const std::optional<std::span<std::byte>> bytes = TryReadBytes(env, value);
  if (!bytes) throw WrongType(env, name, "a Uint8Array");
  return *bytes;
}

[[nodiscard]] inline bool IsUndefined(napi_env env, napi_value value) noexcept {
  napi_valuetype type = napi_undefined;
  if (value == nullptr) return true;
  static_cast<void>(napi_typeof(env, value, &type));
  return type == napi_undefined;
}

[[nodiscard]] inline std::optional<uint64_t> ReadOptionalId(napi_env env, napi_value value, const char* name) {
  if (IsUndefined(env, value)) return std::nullopt;
  return ReadId(env, value, name);
}

[[nodiscard]] inline Napi::Object ReadObject(napi_env env, napi_value value, const char* name) {
  napi_valuetype type = napi_undefined;
  if (value == nullptr || napi_typeof(env, value, &type) != napi_ok || type != napi_object) {
    throw WrongType(env, name, "an object");
  }
  return Napi::Object(env, value);
}

/// true for 'write', false for 'read'.
[[nodiscard]] inline bool ReadLockMode(napi_env env, napi_value value, const char* name) {
  const std::string mode = ReadText(env, value, name);
  if (mode != "read" && mode != "write") throw OutOfRange(env, name, "'read' or 'write'");
  return mode == "write";
}

/// Property `key` of an options object, which must be a function.
[[nodiscard]] inline Napi::Function ReadFunction(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsFunction()) throw WrongType(object.Env(), key, "a function");
  return value.As<Napi::Function>();
}

}  // namespace praas::napi
