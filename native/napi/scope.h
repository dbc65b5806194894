#pragma once

#include "napi/errors.h"
#include "napi/setup.h"

namespace praas::napi {

/// Room for handles in code that libuv calls.
class HandleScope {
 public:
  explicit HandleScope(napi_env env) noexcept : env_(env) {
    if (napi_open_handle_scope(env, &scope_) != napi_ok) scope_ = nullptr;
  }
  ~HandleScope() {
    if (scope_ != nullptr) static_cast<void>(napi_close_handle_scope(env_, scope_));
  }
  HandleScope(const HandleScope&) = delete;
  HandleScope& operator=(const HandleScope&) = delete;

 private:
  napi_env env_;
  napi_handle_scope scope_ = nullptr;
};

/// Surrounds calls into JavaScript from code that libuv calls. Its end runs nextTick callbacks and microtasks, and
/// reports what they throw. Nothing but a HandleScope may lie below it on the stack.
class CallbackScope {
 public:
  CallbackScope(napi_env env, napi_async_context context) noexcept : env_(env) {
    if (napi_open_callback_scope(env, nullptr, context, &scope_) != napi_ok) scope_ = nullptr;
  }
  ~CallbackScope() {
    ReportException(env_);
    if (scope_ != nullptr) static_cast<void>(napi_close_callback_scope(env_, scope_));
  }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;

 private:
  napi_env env_;
  napi_callback_scope scope_ = nullptr;
};

/// The identity of our callbacks for async_hooks.
class AsyncContext {
 public:
  AsyncContext(napi_env env, const char* name) : env_(env) {
    napi_value text = nullptr;
    if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text) != napi_ok ||
        napi_async_init(env, nullptr, text, &context_) != napi_ok) {
      context_ = nullptr;
    }
  }
  /// On the JS thread, outside garbage collection.
  ~AsyncContext() {
    if (context_ != nullptr) static_cast<void>(napi_async_destroy(env_, context_));
  }
  AsyncContext(const AsyncContext&) = delete;
  AsyncContext& operator=(const AsyncContext&) = delete;
  [[nodiscard]] napi_async_context get() const noexcept { return context_; }

 private:
  napi_env env_;
  napi_async_context context_ = nullptr;
};

}  // namespace praas::napi
