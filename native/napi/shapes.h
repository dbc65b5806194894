#pragma once

#include <cstdint>
#include <string>

#include "napi/setup.h"
#include "protocol/state_messages.h"

/// Objects that clients and workers give to JavaScript alike.
namespace praas::napi {

/// NativeKeyInfo.
[[nodiscard]] inline Napi::Object KeyInfoObject(Napi::Env env, const std::string& key, uint32_t kind,
                                                uint32_t element_type, uint64_t bytes, uint64_t version,
                                                uint64_t modified_wall_ns) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("key", key);
  object.Set("kind", kind == 2 ? "array" : "value");
  object.Set("elementType", static_cast<double>(element_type));
  object.Set("bytes", static_cast<double>(bytes));
  object.Set("version", Napi::BigInt::New(env, version));
  object.Set("modifiedMs", static_cast<double>(modified_wall_ns) / 1e6);
  return object;
}

/// {data, version} of stateGet.
[[nodiscard]] inline Napi::Object ValueObject(Napi::Env env, napi_value data, uint64_t version) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("data", data);
  object.Set("version", Napi::BigInt::New(env, version));
  return object;
}

/// {id, promise} of calls and locks.
[[nodiscard]] inline Napi::Object CallObject(Napi::Env env, uint64_t id, napi_value promise) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("id", Napi::BigInt::New(env, id));
  object.Set("promise", promise);
  return object;
}

}  // namespace praas::napi
