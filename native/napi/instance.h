#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "napi/loop.h"
#include "napi/scope.h"
#include "napi/setup.h"

namespace praas::napi {

/// What the addon keeps per environment (main thread, each worker thread); there are no mutable globals.
struct Instance {
  Instance(napi_env env, std::shared_ptr<LoopRegistry> registry)
      : loop(std::move(registry)), calls(env, "praas.call"), invocations(env, "praas.invocation") {}

  std::shared_ptr<LoopRegistry> loop;
  AsyncContext calls;        // outcomes of calls of this thread's connections
  AsyncContext invocations;  // functions run by this thread's worker
  Napi::FunctionReference connection_class;
  Napi::FunctionReference worker_class;
  /// Workers that wait for their host to attach them.
  std::vector<std::shared_ptr<void>> attaching;
  /// Set only while native code constructs a wrapped object: nobody else can.
  void* constructing = nullptr;

  [[nodiscard]] static Instance& Of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }
};

/// Makes an object of a wrapped class whose constructor takes `what` from Instance::constructing.
template <typename T>
[[nodiscard]] Napi::Object Construct(Napi::Env env, const Napi::FunctionReference& constructor, T&& what) {
  Instance& instance = Instance::Of(env);
  struct Reset {
    Instance& instance;
    ~Reset() { instance.constructing = nullptr; }
  } reset{instance};
  instance.constructing = &what;
  return constructor.New({});
}

/// For constructors: what Construct was given, or a TypeError when JavaScript called `new` itself.
template <typename T>
[[nodiscard]] T& Constructing(Napi::Env env, const char* class_name) {
  void* const what = Instance::Of(env).constructing;
  if (what == nullptr) throw Napi::TypeError::New(env, std::string(class_name) + " has no public constructor");
  return *static_cast<T*>(what);
}

}  // namespace praas::napi
