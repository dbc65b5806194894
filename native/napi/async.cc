#include "napi/async.h"

#include <string>

#include "napi/errors.h"

namespace praas::napi {

napi_value PoolWork::Start(napi_env env, const char* name, std::unique_ptr<PoolWork> work) {
  napi_value promise = nullptr;
  napi_value resource = nullptr;
  if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource) != napi_ok ||
      napi_create_promise(env, &work->deferred_, &promise) != napi_ok ||
      napi_create_async_work(env, nullptr, resource, OnExecute, OnComplete, work.get(), &work->work_) != napi_ok ||
      napi_queue_async_work(env, work->work_) != napi_ok) {
    throw ToJsError(env, Status(Code::kInternal, std::string(name) + ": napi_queue_async_work failed"));
  }
  static_cast<void>(work.release());  // OnComplete deletes it
  return promise;
}

void PoolWork::OnExecute(napi_env, void* self) { static_cast<PoolWork*>(self)->Execute(); }

void PoolWork::OnComplete(napi_env env, napi_status status, void* self) {
  const std::unique_ptr<PoolWork> work(static_cast<PoolWork*>(self));
  static_cast<void>(napi_delete_async_work(env, work->work_));
  if (status == napi_cancelled) return;  // the environment is ending; nobody waits for the promise
  napi_value value = nullptr;
  Status failure;
  try {
    Result<napi_value> result = work->Finish(env);
    if (result.ok()) {
      value = *result;
    } else {
      failure = result.status();
    }
  } catch (const Napi::Error& error) {
    static_cast<void>(napi_reject_deferred(env, work->deferred_, error.Value()));
    return;
  }
  if (failure.ok()) {
    static_cast<void>(napi_resolve_deferred(env, work->deferred_, value));
  } else {
    static_cast<void>(napi_reject_deferred(env, work->deferred_, JsError(env, failure)));
  }
}

}  // namespace praas::napi
