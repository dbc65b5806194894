#pragma once

#include <memory>
#include <utility>

#include "base/result.h"
#include "napi/setup.h"

namespace praas::napi {

/// Work for a thread of libuv's pool whose outcome settles a promise. Only for what may block: set-up, never a call.
/// A queued piece of work is cancelled when its environment ends; a running one is waited for, so it must end by
/// itself.
class PoolWork {
 public:
  virtual ~PoolWork() = default;

  /// Owns itself from here on; returns the promise.
  static napi_value Start(napi_env env, const char* name, std::unique_ptr<PoolWork> work);

 protected:
  virtual void Execute() = 0;                           // in the pool: no JavaScript
  virtual Result<napi_value> Finish(napi_env env) = 0;  // on the JS thread; may throw Napi::Error

 private:
  static void OnExecute(napi_env env, void* self);
  static void OnComplete(napi_env env, napi_status status, void* self);

  napi_async_work work_ = nullptr;
  napi_deferred deferred_ = nullptr;
};

/// Runs `execute` (returns Result<T>) in the pool and turns its value into a JavaScript value by `finish(env, T&&)`.
template <typename T, typename ExecuteFn, typename FinishFn>
napi_value RunInPool(napi_env env, const char* name, ExecuteFn execute, FinishFn finish) {
  class Work final : public PoolWork {
   public:
    Work(ExecuteFn&& execute, FinishFn&& finish) : execute_(std::move(execute)), finish_(std::move(finish)) {}

   private:
    void Execute() override { outcome_ = execute_(); }
    Result<napi_value> Finish(napi_env js) override {
      if (!outcome_.ok()) return outcome_.status();
      return finish_(js, std::move(outcome_).value());
    }

    ExecuteFn execute_;
    FinishFn finish_;
    Result<T> outcome_ = Status(Code::kInternal, "the work was not run");
  };
  return PoolWork::Start(env, name, std::make_unique<Work>(std::move(execute), std::move(finish)));
}

}  // namespace praas::napi
